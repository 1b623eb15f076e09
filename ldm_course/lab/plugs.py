"""Put your own function into the real pipeline for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from ldm_course import sampling, schedulers
from ldm_course.errors import InputError

PLACES: dict[str, ModuleType] = {  # what can be replaced, and where the pipeline looks it up
    "guided_eps": sampling,
    "ddpm_step": schedulers,
    "ddim_step": schedulers,
    "euler_step": schedulers,
    "dpmpp_2m_step": schedulers,
}


@contextmanager
def plug(**functions: Callable) -> Iterator[dict[str, int]]:
    """Inside `with plug(ddim_step=mine) as calls:` every pipeline runs `mine` instead of the package's function.

    `calls["ddim_step"]` counts how often it was called. Afterwards the package is as before, also after an error.

    Raises:
        InputError: for a name that cannot be replaced; and at the end, if a function was never called, because
            then nothing that was done inside says anything about it.
    """
    for name, function in functions.items():
        if name not in PLACES:
            raise InputError(f"{name!r} cannot be replaced; {', '.join(PLACES)} can.")
        if not callable(function):
            raise InputError(f"{name} must be a function, not {type(function).__name__}.")
    calls = dict.fromkeys(functions, 0)
    originals = {name: getattr(PLACES[name], name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(PLACES[name], name, _counted(name, function, calls))
        yield calls
    finally:
        for name, original in originals.items():
            setattr(PLACES[name], name, original)
    unused = [name for name, count in calls.items() if count == 0]
    if unused:
        raise InputError(f"Nothing inside called {', '.join(unused)}.")


def _counted(name: str, function: Callable, calls: dict[str, int]) -> Callable:
    @functools.wraps(function)
    def counted(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return counted

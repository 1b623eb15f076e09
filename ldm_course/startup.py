"""A quicker start of torch and transformers."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Pause Python's garbage collector while modules are imported.

    It runs whenever some hundreds of objects have been made. Importing makes them by the hundred thousand and leaves
    no garbage, so that looking for it is a sixth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

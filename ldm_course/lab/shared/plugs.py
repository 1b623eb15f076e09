"""Put your own function or module into the real pipeline for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.func import functional_call

from ldm_course import pipelines, sampling, unet, vae
from ldm_course.blocks import ResnetBlock
from ldm_course.errors import InputError
from ldm_course.groupnorm import GroupNorm

FUNCTIONS: dict[str, ModuleType] = {  # what can be replaced, and where the pipeline looks it up
    "reparameterize": vae,
    "timestep_embedding": unet,
    "strength_timesteps": pipelines,
    "keep_known_region": pipelines,
    "guide": sampling,
}
MODULES: dict[str, type[nn.Module]] = {"GroupNorm": GroupNorm, "ResnetBlock": ResnetBlock}


@contextmanager
def plug(**parts: Any) -> Iterator[dict[str, int]]:
    """Inside `with plug(ddim_step=mine) as calls:` every pipeline runs `mine` instead of the package's function.

    A module is given as its class, `plug(GroupNorm=MyGroupNorm)`: each GroupNorm of each model then runs as a
    MyGroupNorm, made with the same arguments, on the model's own weights.

    `calls["ddim_step"]` counts how often it was called. Afterwards the package is as before, also after an error.

    Raises:
        InputError: for a name that cannot be replaced, or something else than a function or a class of modules;
            for a class whose weights have other names or shapes, at its first call; and at the end, if a part was
            never called, because then nothing that was done inside says anything about it.
    """
    for name, part in parts.items():
        if name not in FUNCTIONS and name not in MODULES:
            raise InputError(f"{name!r} cannot be replaced; {', '.join([*FUNCTIONS, *MODULES])} can.")
        if name in FUNCTIONS and (not callable(part) or isinstance(part, type)):
            raise InputError(f"{name} must be a function, not {_kind(part)}.")
        if name in MODULES and not (isinstance(part, type) and issubclass(part, nn.Module)):
            raise InputError(f"{name} must be a class of modules (a subclass of nn.Module), not {_kind(part)}.")
    calls = dict.fromkeys(parts, 0)
    places = {name: (FUNCTIONS[name], name) if name in FUNCTIONS else (MODULES[name], "forward") for name in parts}
    originals = {name: getattr(*place) for name, place in places.items()}
    try:
        for name, part in parts.items():
            replacing = _counted if name in FUNCTIONS else _as_forward
            owner, attribute = places[name]
            setattr(owner, attribute, replacing(name, part, originals[name], calls))
        with torch.compiler.set_stance("force_eager"):  # a compiled model would go on without the replacement
            yield calls
    finally:
        for name, original in originals.items():
            owner, attribute = places[name]
            setattr(owner, attribute, original)
    unused = [name for name, count in calls.items() if count == 0]
    if unused:
        raise InputError(f"Nothing inside called {', '.join(unused)}.")


def _kind(part: Any) -> str:
    return f"the class {part.__name__}" if isinstance(part, type) else type(part).__name__


def _counted(name: str, yours: Callable, original: Callable, calls: dict[str, int]) -> Callable:
    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return yours(*args, **kwargs)

    return counted


def _as_forward(name: str, yours: type[nn.Module], original: Callable, calls: dict[str, int]) -> Callable:
    """What stands in for the forward of the package's module: one of `yours` for each, run on its weights."""
    twins: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, yours):  # a subclass of the package's module that asks super() for its forward
            return original(self, *args, **kwargs)
        calls[name] += 1
        if self not in twins:
            twins[self] = _twin(name, yours, self)
        return functional_call(twins[self], dict(self.named_parameters()), args, kwargs)

    return forward


def _twin(name: str, yours: type[nn.Module], theirs: nn.Module) -> nn.Module:
    twin = yours(*_arguments(theirs)).to(next(theirs.parameters()).device).train(theirs.training)
    have, want = ({key: tuple(p.shape) for key, p in module.named_parameters()} for module in (twin, theirs))
    for key in sorted(have.keys() | want.keys()):
        if have.get(key) != want.get(key):
            here, there = (
                f"shape {shapes[key]}" if key in shapes else "none of that name" for shapes in (have, want)
            )
            raise InputError(f"The weight {key!r} of your {name} does not fit: it has {here}, the model {there}.")
    return twin


def _arguments(module: nn.Module) -> tuple[int | float | None, ...]:
    """What the package's module was made with."""
    if isinstance(module, GroupNorm):
        return module.num_groups, len(module.weight), module.eps
    assert isinstance(module, ResnetBlock)
    temb_channels = None if module.time_emb_proj is None else module.time_emb_proj.in_features
    groups, eps = module.norm1.num_groups, module.norm1.eps
    return module.conv1.in_channels, module.conv1.out_channels, groups, eps, temb_channels

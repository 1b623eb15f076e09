"""Put your own function or module into the real pipeline for a while."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.func import functional_call

from ldm_course import pipelines, samplers, sampling, unet, vae
from ldm_course.blocks import ResnetBlock
from ldm_course.errors import InputError
from ldm_course.groupnorm import GroupNorm
from ldm_course.schedule import NoiseSchedule

STEPS = {step.__name__: name for name, step in pipelines.SAMPLERS.items()}  # ddim, ddpm, euler, dpmpp_2m
FUNCTIONS: dict[str, ModuleType] = {  # other functions that can be replaced, and the module that calls them
    "reparameterize": vae,
    "timestep_embedding": unet,
    "strength_timesteps": pipelines,
    "keep_known_region": pipelines,
    "guide": sampling,
}
MODULES: dict[str, type[nn.Module]] = {"GroupNorm": GroupNorm, "ResnetBlock": ResnetBlock}


@contextmanager
def plug(**parts: Any) -> Iterator[dict[str, int]]:
    """Inside `with plug(ddim=mine) as calls:` every pipeline runs `mine` instead of the package's function.

    A step (ddim, ddpm, euler, dpmpp_2m) takes the place of the package's step in `pipelines.SAMPLERS`, so it has the
    form of those in samplers.py, and ends at the same noise level.
    A module is given as its class, `plug(GroupNorm=MyGroupNorm)`: each GroupNorm of each model then runs as a
    MyGroupNorm that was made with the same arguments, on the model's own weights.

    `calls["ddim"]` counts the calls. Afterwards the package is as before, also after an error.

    Raises:
        InputError: for a name that cannot be replaced, or a part that is neither a function nor a class of modules;
            for a class whose weights have other names or shapes, at its first call; and at the end, if a part was
            never called, because nothing that was done inside tested it.
    """
    for name, part in parts.items():
        if name not in STEPS | FUNCTIONS | MODULES:
            raise InputError(f"{name!r} cannot be replaced; {', '.join([*STEPS, *FUNCTIONS, *MODULES])} can.")
        is_class = isinstance(part, type)
        if name not in MODULES and (is_class or not callable(part)):
            raise InputError(f"{name} must be a function, not {_kind(part)}.")
        if name in MODULES and not (is_class and issubclass(part, nn.Module)):
            raise InputError(f"{name} must be a class of modules (a subclass of nn.Module), not {_kind(part)}.")
    calls = dict.fromkeys(parts, 0)
    with ExitStack() as stack:
        stack.enter_context(patch.object(sampling, "final_alpha_bar", _final_alpha_bar))
        for name, part in parts.items():
            if name in STEPS:
                step = pipelines.SAMPLERS[STEPS[name]]
                changed = {STEPS[name]: _counted(name, part, step, calls)}
                stack.enter_context(patch.dict(pipelines.SAMPLERS, changed))
            elif name in FUNCTIONS:
                function = getattr(FUNCTIONS[name], name)
                stack.enter_context(patch.object(FUNCTIONS[name], name, _counted(name, part, function, calls)))
            else:
                forward = _as_forward(name, part, MODULES[name].forward, calls)
                stack.enter_context(patch.object(MODULES[name], "forward", forward))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # a compiled model ignores the replacement
        yield calls
    unused = [name for name, count in calls.items() if count == 0]
    if unused:
        raise InputError(f"Nothing inside called {', '.join(unused)}.")


def _final_alpha_bar(schedule: NoiseSchedule, step: samplers.Step) -> float:
    """As `samplers.final_alpha_bar`, for a step in the place of another: that one decides."""
    return samplers.final_alpha_bar(schedule, inspect.unwrap(step))


def _kind(part: Any) -> str:
    return f"the class {part.__name__}" if isinstance(part, type) else type(part).__name__


def _counted(name: str, yours: Callable, original: Callable, calls: dict[str, int]) -> Callable:
    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return yours(*args, **kwargs)

    return counted


def _as_forward(name: str, yours: type[nn.Module], original: Callable, calls: dict[str, int]) -> Callable:
    """A forward for the package's module: it makes a twin of class `yours` for each, and runs it on its weights."""
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
    """The arguments that the package's module was made with."""
    if isinstance(module, GroupNorm):
        return module.num_groups, len(module.weight), module.eps
    assert isinstance(module, ResnetBlock)
    temb_channels = None if module.time_emb_proj is None else module.time_emb_proj.in_features
    groups, eps = module.norm1.num_groups, module.norm1.eps
    return module.conv1.in_channels, module.conv1.out_channels, groups, eps, temb_channels

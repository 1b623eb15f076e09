"""Checks of what was asked for, kept apart so that the code that does the work stays short.

Each raises `InputError`, with one sentence that says what was wrong and what to do, before anything is computed.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm_course.errors import InputError, shown

if TYPE_CHECKING:
    from ldm_course.checkpoint import LatentDiffusion
    from ldm_course.schedulers import NoiseSchedule

SCHEDULERS = ("ddpm", "ddim", "euler", "dpm++")
SPACINGS = ("leading", "trailing", "linspace")


def check_model(model: object) -> None:
    """A model, and not the prompt or the folder in its place."""
    if not hasattr(model, "unet"):
        raise InputError(f"The first argument must be a model, from ldm_course.load(), not {type(model).__name__}.")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} is {shown(value)}; it must be one of {', '.join(map(repr, choices))}.")


def check_schedule(schedule: NoiseSchedule) -> None:
    """The fields of a NoiseSchedule."""
    start, end, T = schedule.beta_start, schedule.beta_end, schedule.num_train_timesteps
    if not isinstance(T, Integral) or not 1 <= T <= 100_000:
        raise InputError(f"num_train_timesteps is {shown(T)}; it must be a whole number from 1 to 100000.")
    if not 0 < start <= end < 1:
        raise InputError(f"beta_start {start} and beta_end {end} must satisfy 0 < beta_start <= beta_end < 1.")
    if not 0 <= schedule.steps_offset < T:
        raise InputError(f"steps_offset is {schedule.steps_offset}; it must be a timestep, from 0 to {T - 1}.")
    check_choice("beta_schedule", schedule.beta_schedule, ("linear", "scaled_linear"))
    check_choice("prediction_type", schedule.prediction_type, ("epsilon", "v_prediction"))
    check_choice("timestep_spacing", schedule.timestep_spacing, SPACINGS)


def check_steps(schedule: NoiseSchedule, num_inference_steps: int, spacing: str) -> None:
    """A number of steps, and whether they fit on the schedule."""
    T, offset = schedule.num_train_timesteps, schedule.steps_offset
    check_choice("timestep_spacing", spacing, SPACINGS)
    if not isinstance(num_inference_steps, Integral) or not 1 <= num_inference_steps <= T:
        raise InputError(
            f"num_inference_steps is {shown(num_inference_steps)}; it must be a whole number from 1 to {T}."
        )
    n = int(num_inference_steps)  # numpy's small kinds would overflow below
    if spacing == "leading" and (n - 1) * (T // n) + offset >= T:
        raise InputError(
            f"{n} steps with leading spacing and offset {offset} would start beyond the last timestep, {T - 1}; "
            "take fewer steps, or another timestep_spacing."
        )


def whole_timesteps(timesteps: Iterable[int]) -> list[int]:
    """Timesteps of any kind of whole number (a tensor's, numpy's) as a list of int."""
    try:
        return [operator.index(t) for t in timesteps]
    except TypeError:
        raise InputError("timesteps must be a list of whole numbers, such as model.schedule.timesteps(50).") from None


def check_timestep(schedule: NoiseSchedule, t: int | Tensor) -> None:
    """A timestep, or a tensor of them, on the schedule: 0 ... T - 1."""
    T = schedule.num_train_timesteps
    lowest, highest = (t.min(), t.max()) if isinstance(t, Tensor) else (t, t)
    if lowest < 0 or highest >= T:
        raise InputError(
            f"There is no timestep {shown(int(lowest if lowest < 0 else highest))}; they run from 0 to {T - 1}."
        )


def check_guidance(guidance_scale: float) -> None:
    """A finite number; far beyond 10000 nothing but overflow is left."""
    if not isinstance(guidance_scale, Real) or not abs(guidance_scale) <= 10_000:
        raise InputError(
            f"guidance_scale is {shown(guidance_scale)}; it must be a finite number, at most 10000, such as 7.5."
        )


def check_strength(strength: float) -> None:
    """A share, from 0 to 1."""
    if not isinstance(strength, Real) or not 0 <= strength <= 1:
        raise InputError(f"strength is {shown(strength)}; it must be a number from 0 (change nothing) to 1.")


def check_generator(generator: torch.Generator | Sequence[torch.Generator] | None, batch: int) -> None:
    """None, a generator on the CPU, or a list of one per picture."""
    if generator is None:
        return
    listed = [generator] if isinstance(generator, torch.Generator) else generator
    if not isinstance(listed, (list, tuple)) or not all(isinstance(g, torch.Generator) for g in listed):
        raise InputError("generator must be a torch.Generator, or a list of them.")
    if any(g.device.type != "cpu" for g in listed):
        raise InputError("generator must be on the CPU: noise is drawn there and then moved, so that it is the same.")
    if listed is generator and len(listed) != batch:
        raise InputError(f"{len(listed)} generators do not fit {batch} pictures; give one, or one per picture.")


def check_seed(seed: int) -> None:
    """What torch.Generator takes as a seed: a whole number of 63 bits."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {shown(seed)}; it must be a whole number from 0 to 2**63 - 1.")


def check_prompts(prompts: object, name: str = "prompt") -> None:
    """A list of strings, at least one; each may be empty."""
    if isinstance(prompts, str):
        raise InputError(f"{name} must be a list of strings here, even for one: write [{shown(prompts)}].")
    if not isinstance(prompts, (list, tuple)):
        raise InputError(f"{name} must be a string or a list of strings, not {type(prompts).__name__}.")
    if not prompts:
        raise InputError(f"{name} is an empty list; give at least one text.")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise InputError(f"{name} must be a string or a list of strings, without {type(prompt).__name__} in it.")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):  # what Python makes of bytes that are not UTF-8
            raise InputError(f"{name} holds bytes that are no text; type it again, or decode it rightly.")


def check_denoise(
    model: LatentDiffusion,
    x_T: Tensor,
    context: Tensor,
    timesteps: list[int],
    negative_context: Tensor | None,
    guidance_scale: float,
    scheduler: str,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> None:
    """The arguments of `sampling.denoise`."""
    check_model(model)
    check_choice("scheduler", scheduler, SCHEDULERS)
    check_guidance(guidance_scale)
    for t in timesteps:
        check_timestep(model.schedule, t)
    if any(t <= t_prev for t, t_prev in zip(timesteps, timesteps[1:])):
        raise InputError("timesteps must go from high to low, each of them once.")
    for value in (x_T, context, context if negative_context is None else negative_context):
        if not isinstance(value, Tensor):
            raise InputError(
                f"Each of x_T, context and negative_context must be a torch.Tensor, not {type(value).__name__}."
            )
    if x_T.dim() != 4 or context.dim() != 3 or len(x_T) != len(context) or 0 in x_T.shape:
        raise InputError(
            f"x_T must be (b, c, h, w) and context (b, tokens, d) with the same b; they are {tuple(x_T.shape)} "
            f"and {tuple(context.shape)}."
        )
    if guidance_scale != 1 and negative_context is None:
        raise InputError(
            "Guidance needs negative_context, such as the empty text's vectors; or set guidance_scale=1."
        )
    if negative_context is not None and negative_context.shape != context.shape:
        raise InputError(
            f"negative_context must have context's shape, {tuple(context.shape)}; "
            f"it has {tuple(negative_context.shape)}."
        )
    check_generator(generator, len(x_T))

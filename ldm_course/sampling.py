"""From noise to a latent: classifier-free guidance, and the one loop that every task runs. Notebook 04."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course import schedulers
from ldm_course.errors import InputError

if TYPE_CHECKING:
    from ldm_course.checkpoint import LatentDiffusion

Generators = torch.Generator | Sequence[torch.Generator] | None  # one for the whole batch, or one per picture
AfterStep = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class State:
    """Where the loop stands at timestep t; all tensors are (b, c, h, w), float32, on the model's device.

    t: the timestep; -1 when all steps are done.
    x_t: the latent with its noise, before the step, variance-preserving under every scheduler.
    eps: the noise predicted in x_t, after guidance; at the end, that of the last step.
    x0_hat: the guess at the finished latent; at the end it is the finished latent, and so is x_t.
    """

    t: int
    x_t: Tensor
    eps: Tensor
    x0_hat: Tensor


def draw_noise(shape: Sequence[int], generator: Generators = None) -> Tensor:
    """Noise ~ N(0, 1) of shape (b, ...), drawn in float32 on the CPU, so that a seed means the same everywhere.

    Args:
        generator: one draws the whole batch at once, as diffusers does; a list of b draws each picture from its
            own, so that a picture does not depend on its neighbours; None is torch's global one.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator)
    return torch.cat([torch.randn(1, *shape[1:], generator=g) for g in generator])


def guided_eps(eps_uncond: Tensor, eps_cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: go from the prediction without the text past the one with it.

    Ho and Salimans 2022, eq. 6, with s = 1 + w: s = 0 ignores the text, 1 just follows it, more exaggerates it.
    """
    return eps_uncond + guidance_scale * (eps_cond - eps_uncond)


def predict(
    model: LatentDiffusion,
    x_t: Tensor,
    t: int,
    context: Tensor,
    negative_context: Tensor | None = None,
    guidance_scale: float = 1.0,
) -> Tensor:
    """The UNet's guided prediction for x_t (eps or v, as it was trained), (b, c, h, w), float32.

    At a scale of exactly 1 the unconditional half would cancel out, so it is not computed. (diffusers leaves
    it out for every scale <= 1; here 0.5 means what the formula says.)
    """
    if guidance_scale == 1 or negative_context is None:
        return model.unet(x_t.to(model.dtype), t, context.to(model.dtype)).float()
    both = torch.cat([negative_context, context]).to(model.dtype)  # (2b, 77, d)
    prediction = model.unet(torch.cat([x_t, x_t]).to(model.dtype), t, both).float()  # (2b, c, h, w)
    uncond, cond = prediction.chunk(2)
    return guided_eps(uncond, cond, guidance_scale)


def denoise(
    model: LatentDiffusion,
    x_T: Tensor,
    context: Tensor,
    timesteps: Sequence[int],
    *,
    negative_context: Tensor | None = None,
    guidance_scale: float = 1.0,
    scheduler: str = "ddim",
    generator: Generators = None,
    after_step: AfterStep | None = None,
    progress: bool = False,
) -> Iterator[State]:
    """The loop. Yields one State per timestep, seen before its step, and a last one with t = -1: the result.

    Nothing is computed before the first State is asked for, and nothing after the last one taken.

    Args:
        x_T: latents at the noise level of timesteps[0], (b, c, h, w).
        context: the text encoder's vectors, (b, 77, d).
        timesteps: from high to low, such as `model.schedule.timesteps(50)`; none at all is allowed.
        negative_context: vectors of what to steer away from, usually the empty text; needed unless the scale is 1.
        guidance_scale: see `guided_eps`; 1 is no guidance.
        scheduler: "ddpm", "ddim", "euler" or "dpm++". Each steps to the next listed timestep. (DDIM in diffusers
            steps to t - 1000 // n, which is another one unless spacing is "leading" or n divides 1000.)
        generator: of DDPM's noise; see `draw_noise`.
        after_step: called with (x, t_prev) after every step and its result put in place of x, which is at the
            noise level of t_prev; t_prev = -1 after the last step.
        progress: show a progress bar.

    Raises:
        InputError: at the call, if the arguments do not fit each other.
    """
    check_choices(scheduler, guidance_scale)
    timesteps = [int(t) for t in timesteps]
    T = model.schedule.num_train_timesteps
    if any(not 0 <= t < T for t in timesteps) or any(a <= b for a, b in zip(timesteps, timesteps[1:])):
        raise InputError(f"timesteps must fall from step to step and stay within 0 ... {T - 1}; got {timesteps}.")
    if x_T.dim() != 4 or context.dim() != 3 or len(x_T) != len(context):
        raise InputError(
            f"x_T must be (b, c, h, w) and context (b, tokens, d) with the same b; got {tuple(x_T.shape)} "
            f"and {tuple(context.shape)}."
        )
    if guidance_scale != 1 and negative_context is None:
        raise InputError("Guidance needs negative_context, the vectors of the empty text; or set guidance_scale=1.")
    if guidance_scale != 1 and negative_context is not None and negative_context.shape != context.shape:
        raise InputError(
            f"negative_context must have context's shape {tuple(context.shape)}, not {tuple(negative_context.shape)}."
        )
    check_generator(generator, len(x_T))
    return _denoise(
        model, x_T, context, timesteps, negative_context, guidance_scale, scheduler, generator, after_step, progress
    )


@torch.no_grad()  # torch lifts it while the caller holds a State
def _denoise(
    model: LatentDiffusion,
    x_T: Tensor,
    context: Tensor,
    timesteps: list[int],
    negative_context: Tensor | None,
    guidance_scale: float,
    scheduler: str,
    generator: Generators,
    after_step: AfterStep | None,
    progress: bool,
) -> Iterator[State]:
    schedule = model.schedule
    x_t = x_T.to(model.device, torch.float32)
    eps = torch.zeros_like(x_t)
    x0_before, alpha_bar_before = None, None  # DPM-Solver++'s memory

    for t, t_prev in zip(tqdm(timesteps, disable=not progress), timesteps[1:] + [-1]):
        prediction = predict(model, x_t, t, context, negative_context, guidance_scale)
        x0_hat, eps = schedule.x0_and_eps(prediction, x_t, t)
        yield State(t, x_t, eps, x0_hat)

        alpha_bar_t = schedule.alpha_bar(t)
        alpha_bar_prev = schedule.alpha_bar(t_prev) if t_prev >= 0 or scheduler == "ddim" else 1.0
        if scheduler == "ddim":
            x_t = schedulers.ddim_step(x_t, eps, alpha_bar_t, alpha_bar_prev)
        elif scheduler == "ddpm":
            noise = draw_noise(x_t.shape, generator).to(x_t.device)
            x_t = schedulers.ddpm_step(x_t, eps, alpha_bar_t, alpha_bar_prev, noise)
        elif scheduler == "euler":
            x_t = schedulers.euler_step(x_t, eps, alpha_bar_t, alpha_bar_prev)
        else:
            x_t = schedulers.dpmpp_2m_step(x_t, eps, alpha_bar_t, alpha_bar_prev, x0_before, alpha_bar_before)
            x0_before, alpha_bar_before = x0_hat, alpha_bar_t
        if after_step is not None:
            x_t = after_step(x_t, t_prev)

    yield State(-1, x_t, eps, x_t)


def check_choices(scheduler: str, guidance_scale: float) -> None:
    """Raise InputError for an unknown scheduler, or a guidance scale that is not a finite number."""
    if scheduler not in schedulers.SCHEDULERS:
        raise InputError(
            f"scheduler is {scheduler!r}; it must be one of {', '.join(map(repr, schedulers.SCHEDULERS))}."
        )
    if not isinstance(guidance_scale, (int, float)) or not math.isfinite(guidance_scale):
        raise InputError(f"guidance_scale is {guidance_scale!r}; it must be a finite number, such as 7.5.")


def check_generator(generator: Generators, batch: int) -> None:
    """Raise InputError unless the generator is a CPU one, or a list of one per picture, or None."""
    if generator is None:
        return
    listed = [generator] if isinstance(generator, torch.Generator) else list(generator)
    if any(not isinstance(g, torch.Generator) or g.device.type != "cpu" for g in listed):
        raise InputError(
            "generator must be a torch.Generator on the CPU, or a list of them; noise is drawn there and moved."
        )
    if not isinstance(generator, torch.Generator) and len(listed) != batch:
        raise InputError(
            f"{len(listed)} generators do not fit {batch} pictures; give one generator, or one per picture."
        )

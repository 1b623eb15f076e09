"""From noise to a latent: classifier-free guidance, and the one loop that every task runs. Notebook 04."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course import schedulers
from ldm_course.inputs import check_denoise, whole_timesteps
from ldm_course.unet import UNet, repeated

if TYPE_CHECKING:
    from ldm_course.checkpoint import LatentDiffusion

Generators = torch.Generator | Sequence[torch.Generator] | None  # one for the whole batch, or one per picture
AfterStep = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class State:
    """Where the loop stands. The tensors are (b, c, h, w), float32, on the model's device.

    t: the timestep; -1 when all steps are done.
    x_t: the latent before the step at t, noise included, variance-preserving under every scheduler.
    eps: the noise predicted in x_t, after guidance; at the end, that of the last step (0 if there was none).
    x0_hat: the guess at the finished latent; at the end it is the finished latent, and so is x_t.
    """

    t: int
    x_t: Tensor
    eps: Tensor
    x0_hat: Tensor


def draw_noise(shape: Sequence[int], generator: Generators = None) -> Tensor:
    """Noise ~ N(0, 1) of shape (b, ...), drawn in float32 on the CPU, so that a seed means the same everywhere.

    One generator draws the whole batch at once, as in diffusers. Of a list each draws its own picture, which then
    does not depend on its neighbours. None is torch's global generator.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator)
    return torch.cat([torch.randn(1, *shape[1:], generator=g) for g in generator])


def guided_eps(eps_uncond: Tensor, eps_cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: from the prediction without the text, go towards the one with it, and past it.

    Ho and Salimans 2022, eq. 6, with guidance_scale = 1 + w: 0 ignores the text, 1 follows it, 7.5 exaggerates it.
    """
    return eps_uncond + guidance_scale * (eps_cond - eps_uncond)


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
    """The loop: yields a State before each step, and a last one, t = -1, with the result. Lazy: ask for the next.

    Args:
        x_T: latents at the noise level of timesteps[0], (b, c, h, w).
        context: the text encoder's vectors, (b, 77, d).
        timesteps: from high to low, such as model.schedule.timesteps(50); may be empty. Each step goes to the next
            one. (diffusers' DDIM goes to t - 1000 // n: another, unless "leading" or n divides 1000; and with
            "leading" and over 500 steps it ends at alpha_bar_0 whatever set_alpha_to_one says.)
        negative_context: what to steer away from, as context, usually the empty text; needed unless the scale is 1.
        guidance_scale: see `guided_eps`.
        scheduler: "ddpm", "ddim", "euler" or "dpm++".
        generator: draws DDPM's noise; see `draw_noise`.
        after_step: called as after_step(x, t_prev) after each step, where t_prev is the timestep whose noise level
            x now has (-1 at the end); the loop goes on with what it returns.
        progress: show a progress bar.
    Raises InputError, at once, if the arguments do not fit each other.
    """
    steps = whole_timesteps(timesteps)
    check_denoise(model, x_T, context, steps, negative_context, guidance_scale, scheduler, generator)
    schedule, guidance_scale = model.schedule, float(guidance_scale)  # a Fraction does not multiply with tensors

    @torch.no_grad()  # while a step is computed; not while the caller looks at a State
    def states() -> Iterator[State]:
        x_t = x_T.to(model.device, torch.float32)
        eps = torch.zeros_like(x_t)
        both = context if negative_context is None or guidance_scale == 1 else torch.cat([negative_context, context])
        both = both.to(model.dtype)  # (b or 2b, 77, d): at a scale of 1 a half would cancel out, and is not computed
        ours = isinstance(model.unet, UNet)  # a UNet of your own gets plain tensors of the same batch
        text = model.unet.read(both) if ours else both
        x0_before, alpha_bar_before = None, None  # DPM-Solver++ looks back
        for t, t_prev in zip(tqdm(steps, disable=not progress), [*steps[1:], -1]):
            x = (x_t if ours else repeated(x_t, len(both))).to(model.dtype)
            prediction = model.unet(x, torch.tensor([t]), text).float()  # eps or v, (b or 2b, c, h, w)
            if guidance_scale != 1:
                prediction = guided_eps(prediction[: len(x_t)], prediction[len(x_t) :], guidance_scale)
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

    return states()

"""Ways to take one step from noise towards a latent: DDPM, DDIM, Euler, DPM-Solver++ 2M. Notebook 03.

And `flow_euler`, the step of Stable Diffusion 3 and Flux. Notebook beyond/flow.

A step is a pure function step(now, alpha_bar, before, noise) that returns the latent at the next noise level.

Args:
    now: the `State` of the loop, with the prediction for x_t.
    alpha_bar: the level to go to, now.alpha_bar < alpha_bar <= 1.
    before: the State one step earlier, None at the first step. Only DPM-Solver++ looks at it.
    noise: a function that draws noise ~ N(0, 1) of x_t's shape. Only DDPM calls it.

`denoise(..., step=...)` takes any function of this form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt

from torch import Tensor

from ldm_course.schedule import NoiseSchedule


@dataclass(frozen=True)
class State:
    """Where the loop stands. The tensors are (b, c, h, w), float32, on the model's device.

    Args:
        t: the timestep; -1 when all steps are done.
        x_t: the latent before the step at t, with its noise; variance-preserving under every sampler.
        eps: the noise predicted in x_t, after guidance; at the end, that of the last step (0 if there was none).
        x0_hat: the estimate of the finished latent; at the end it is the finished latent, and so is x_t.
        alpha_bar: the noise level of x_t: its signal has the weight sqrt(alpha_bar), its noise sqrt(1 - alpha_bar).
    """

    t: int
    x_t: Tensor
    eps: Tensor
    x0_hat: Tensor
    alpha_bar: float


Noise = Callable[[], Tensor]
Step = Callable[[State, float, State | None, Noise], Tensor]


def ddim(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
    """DDIM: estimate x_0, then add less of the same noise back (Song et al. 2021, eq. 12 with sigma_t = 0)."""
    return sqrt(alpha_bar) * now.x0_hat + sqrt(1 - alpha_bar) * now.eps


def ddpm(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
    """DDPM: sample q(x_prev | x_t, x_0) with x0_hat in place of x_0 (Ho et al. 2020, eq. 6-7)."""
    alpha_t = now.alpha_bar / alpha_bar  # of a step of this length; beta_t = 1 - alpha_t
    x0_weight = sqrt(alpha_bar) * (1 - alpha_t) / (1 - now.alpha_bar)
    x_t_weight = sqrt(alpha_t) * (1 - alpha_bar) / (1 - now.alpha_bar)
    variance = (1 - alpha_bar) / (1 - now.alpha_bar) * (1 - alpha_t)  # beta tilde; 0 if alpha_bar is 1
    return x0_weight * now.x0_hat + x_t_weight * now.x_t + sqrt(variance) * noise()


def euler(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
    """Euler's method for dy = eps dsigma, y = x / sqrt(alpha_bar) (Karras et al. 2022, alg. 1): DDIM seen from y."""
    sigma_now, sigma = sqrt(1 / now.alpha_bar - 1), sqrt(1 / alpha_bar - 1)
    y = now.x_t / sqrt(now.alpha_bar)  # = x_0 + sigma eps
    return sqrt(alpha_bar) * (y + (sigma - sigma_now) * now.eps)


def flow_euler(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
    """Euler's method for dx = (eps - x_0) ds on the straight path x_s = (1 - s) x_0 + s eps: DDIM seen from x_s.

    Liu et al. 2023, section 2.1; Esser et al. 2024, eq. 13. It takes and returns the variance-preserving x_t, which
    is x_s of the same signal-to-noise ratio times sqrt(alpha_bar) + sqrt(1 - alpha_bar).
    """
    size_now, size = (sqrt(a) + sqrt(1 - a) for a in (now.alpha_bar, alpha_bar))
    s_now, s = sqrt(1 - now.alpha_bar) / size_now, sqrt(1 - alpha_bar) / size
    x_s = now.x_t / size_now
    return size * (x_s + (s - s_now) * (now.eps - now.x0_hat))


def dpmpp_2m(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
    """DPM-Solver++ 2M: DDIM with x_0 extrapolated from this estimate and the last one (Lu et al. 2022, alg. 2).

    The first step, and the one to alpha_bar = 1, are DDIM's.
    """
    if before is None or alpha_bar == 1:
        return ddim(now, alpha_bar, before, noise)
    r = (log_snr(now.alpha_bar) - log_snr(before.alpha_bar)) / (log_snr(alpha_bar) - log_snr(now.alpha_bar))
    d = now.x0_hat + (now.x0_hat - before.x0_hat) / (2 * r)
    shrink = sqrt((1 - alpha_bar) / (1 - now.alpha_bar))
    return shrink * now.x_t + (sqrt(alpha_bar) - sqrt(now.alpha_bar) * shrink) * d  # the paper's -alpha (e^-h - 1) d


def log_snr(alpha_bar: float) -> float:
    """lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)), the solver's measure of time (Lu et al. 2022)."""
    return 0.5 * log(alpha_bar / (1 - alpha_bar))


def final_alpha_bar(schedule: NoiseSchedule, step: Step) -> float:
    """The level that the last step goes to. DDPM, both of Euler's and DPM-Solver++ end without noise.

    DDIM, and a step of your own, end at schedule.alpha_bar(-1): without noise if `set_alpha_to_one` is True. Stable
    Diffusion says False, and 0.029 of the predicted noise stays.
    """
    return 1.0 if step in (ddpm, euler, flow_euler, dpmpp_2m) else schedule.alpha_bar(-1)

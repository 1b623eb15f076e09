"""The noise schedule, and four ways from noise to a latent: DDPM, DDIM, Euler, DPM-Solver++. Notebook 03.

The symbols are the papers': x_t is a latent with noise, eps that noise, x0_hat the guess at the latent without it,
`alpha_bar_t` how much signal is left at time t. A step is a pure function: nothing is counted, set or changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ldm_course.inputs import SCHEDULERS as SCHEDULERS
from ldm_course.inputs import check_schedule, check_steps, check_timestep


@dataclass(frozen=True)
class NoiseSchedule:
    """How fast the noise grows; the defaults are Stable Diffusion 1.5's. Names are those of diffusers' config files.

    num_train_timesteps: T; timesteps run from 0 (nearly clean) to T - 1 (nearly pure noise).
    beta_start, beta_end: the share of noise that one training step mixes in, at t = 0 and at t = T - 1.
    beta_schedule: in between, "linear" in beta, or "scaled_linear", that is linear in sqrt(beta).
    prediction_type: the network predicts eps ("epsilon"), or v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0
        ("v_prediction"; Salimans and Ho 2022, appendix D).
    timestep_spacing, steps_offset: see `timesteps`.
    set_alpha_to_one: DDIM's last step ends at alpha_bar = 1, no noise left; otherwise at alpha_bar_0, as trained.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False

    def __post_init__(self) -> None:
        check_schedule(self)

    @cached_property
    def alpha_bars(self) -> Tensor:
        """alpha_bar_t = product over s <= t of (1 - beta_s), (T,), float64. Computed once: do not write to it."""
        power = 2 if self.beta_schedule == "scaled_linear" else 1
        start, end = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        betas = torch.linspace(start, end, self.num_train_timesteps, dtype=torch.float64) ** power
        return torch.cumprod(1 - betas, dim=0)

    def alpha_bar(self, t: int) -> float:
        """alpha_bar_t for t in 0 ... T - 1; for t = -1 the level after DDIM's last step. InputError for others."""
        if t == -1:
            return 1.0 if self.set_alpha_to_one else self.alpha_bar(0)
        check_timestep(self, t)
        return self.alpha_bars[t].item()

    def timesteps(self, num_inference_steps: int, spacing: str | None = None) -> list[int]:
        """The timesteps that are visited, from high to low, the same for all four steps (Lin et al. 2024, table 2).

        50 of 1000 are 981, 961, ..., 1 with "leading" spacing (a stride of 20, plus steps_offset), 999, 979, ..., 19
        with "trailing" and 999, 979, 958, ..., 0 with "linspace"; None is the schedule's own. Raises InputError
        unless the number is from 1 to T and no timestep is beyond the last one. (In diffusers Euler keeps the
        fractions of "linspace", DPM-Solver++ has other lists, and "trailing" may end with a -1.)
        """
        spacing = self.timestep_spacing if spacing is None else spacing
        check_steps(self, num_inference_steps, spacing)
        n, T = int(num_inference_steps), self.num_train_timesteps
        if spacing == "leading":
            return [i * (T // n) + self.steps_offset for i in reversed(range(n))]
        if spacing == "trailing":
            return [round(t) - 1 for t in np.arange(T, 0, -T / n)[:n]]
        return [round(t) for t in np.linspace(0, T - 1, n)[::-1]]

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4).

        x0 and noise are (b, ...); t is a timestep, or one per picture, (b,). InputError unless 0 <= t < T.
        """
        check_timestep(self, t)
        alpha_bar_t = self.alpha_bars[torch.as_tensor(t).cpu()].view(-1, *[1] * (x0.dim() - 1))  # (b or 1, 1, 1, 1)
        signal, noise_level = alpha_bar_t.sqrt().to(x0.dtype), (1 - alpha_bar_t).sqrt().to(x0.dtype)
        return signal.to(x0.device) * x0 + noise_level.to(x0.device) * noise

    def x0_and_eps(self, prediction: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """(x0_hat, eps): what a prediction for x_t says of x_0 and noise. All (b, c, h, w). Raises as alpha_bar."""
        signal, noise_level = math.sqrt(self.alpha_bar(t)), math.sqrt(1 - self.alpha_bar(t))
        if self.prediction_type == "epsilon":
            return (x_t - noise_level * prediction) / signal, prediction  # Ho et al. 2020, eq. 15
        x0_hat = signal * x_t - noise_level * prediction  # no division by signal
        return x0_hat, signal * prediction + noise_level * x_t


def ddim_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_prev: float) -> Tensor:
    """DDIM: guess x_0, then put less of the same noise back (Song et al. 2021, eq. 12 with sigma_t = 0).

    x_t and eps, the noise predicted in it, are (b, c, h, w). The step leads from alpha_bar_t up to alpha_bar_prev.
    """
    x0_hat = (x_t - math.sqrt(1 - alpha_bar_t) * eps) / math.sqrt(alpha_bar_t)
    return math.sqrt(alpha_bar_prev) * x0_hat + math.sqrt(1 - alpha_bar_prev) * eps


def ddpm_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_prev: float, noise: Tensor) -> Tensor:
    """DDPM: draw from q(x_prev | x_t, x_0) with x0_hat for x_0 (Ho et al. 2020, eq. 6-7); noise ~ N(0, 1), as x_t."""
    alpha_t = alpha_bar_t / alpha_bar_prev  # of a step of this length; beta_t = 1 - alpha_t
    x0_hat = (x_t - math.sqrt(1 - alpha_bar_t) * eps) / math.sqrt(alpha_bar_t)
    x0_share = math.sqrt(alpha_bar_prev) * (1 - alpha_t) / (1 - alpha_bar_t)  # eq. 7
    x_t_share = math.sqrt(alpha_t) * (1 - alpha_bar_prev) / (1 - alpha_bar_t)  # eq. 7
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar_t) * (1 - alpha_t)  # eq. 7, beta tilde; 0 if alpha_bar_prev is 1
    return x0_share * x0_hat + x_t_share * x_t + math.sqrt(variance) * noise


def euler_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_prev: float) -> Tensor:
    """Euler's method for dy = eps dsigma, y = x / sqrt(alpha_bar) (Karras et al. 2022, alg. 1): DDIM seen from y."""
    sigma_t, sigma_prev = math.sqrt(1 / alpha_bar_t - 1), math.sqrt(1 / alpha_bar_prev - 1)
    y = x_t / math.sqrt(alpha_bar_t)  # = x_0 + sigma_t eps
    y = y + (sigma_prev - sigma_t) * eps
    return math.sqrt(alpha_bar_prev) * y


def dpmpp_2m_step(
    x_t: Tensor,
    eps: Tensor,
    alpha_bar_t: float,
    alpha_bar_prev: float,
    x0_before: Tensor | None = None,
    alpha_bar_before: float | None = None,
) -> Tensor:
    """DPM-Solver++ 2M: DDIM, but x_0 is extrapolated from this guess and the last one (Lu et al. 2022, alg. 2).

    x0_before and alpha_bar_before are x0_hat and alpha_bar_t of the step before. Without them, at the first step, it
    is exactly DDIM; and a step to alpha_bar_prev = 1 returns x0_hat.
    """
    alpha_t, sigma_t = math.sqrt(alpha_bar_t), math.sqrt(1 - alpha_bar_t)
    alpha_prev, sigma_prev = math.sqrt(alpha_bar_prev), math.sqrt(1 - alpha_bar_prev)
    d = x0_hat = (x_t - sigma_t * eps) / alpha_t
    if x0_before is not None and alpha_bar_before is not None and alpha_bar_prev < 1:
        lambda_t, lambda_prev = log_snr(alpha_bar_t), log_snr(alpha_bar_prev)
        r = (lambda_t - log_snr(alpha_bar_before)) / (lambda_prev - lambda_t)
        d = x0_hat + (x0_hat - x0_before) / (2 * r)
    shrink = sigma_prev / sigma_t
    return shrink * x_t + (alpha_prev - alpha_t * shrink) * d  # the paper's -alpha_prev (e^-h - 1) d


def log_snr(alpha_bar: float) -> float:
    """lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)), the solver's measure of time (Lu et al. 2022)."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))

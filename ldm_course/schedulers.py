"""The noise schedule, and four ways from noise to a latent: DDPM, DDIM, Euler, DPM-Solver++. Notebook 03.

The symbols are the papers': x_t is a latent with noise, eps the noise in it, x0_hat the guess at the latent
without. alpha_bar_t says how much signal is left at time t:

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps        (Ho et al. 2020, eq. 4)

A schedule is frozen data and a step is a pure function: nothing is counted, set or changed, and the same
arguments give the same answer. A step goes to any lower noise level: `alpha_bar_prev` is the level of the next
timestep on the list, or the schedule's end after the last one. Scalars are float64; tensors keep their dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ldm_course.errors import InputError

SCHEDULERS = ("ddpm", "ddim", "euler", "dpm++")
SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True)
class NoiseSchedule:
    """How fast the noise grows; the defaults are Stable Diffusion 1.5's. Names are those of diffusers' config files.

    num_train_timesteps: T; timesteps run from 0 (nearly clean) to T - 1 (nearly pure noise).
    beta_start, beta_end: share of the variance that a training step replaces by noise, at t = 0 and at t = T - 1.
    beta_schedule: "linear" in beta, or "scaled_linear": linear in sqrt(beta), as in Stable Diffusion.
    prediction_type: the network predicts eps ("epsilon"), or v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0
        ("v_prediction"; Salimans and Ho 2022, appendix D).
    timestep_spacing: which timesteps are visited when there are fewer steps than T; see `timesteps`.
    steps_offset: added to every timestep under "leading" spacing.
    set_alpha_to_one: whether DDIM's last step ends at alpha_bar = 1, no noise left, or at alpha_bar_0, as trained.

    Raises:
        InputError: if a value is out of its range.
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
        if self.num_train_timesteps < 1:
            raise InputError(f"num_train_timesteps is {self.num_train_timesteps}; it must be at least 1.")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise InputError(
                f"beta_start {self.beta_start} and beta_end {self.beta_end} must satisfy 0 < start <= end < 1."
            )
        if not 0 <= self.steps_offset < self.num_train_timesteps:
            raise InputError(f"steps_offset is {self.steps_offset}; it must lie in 0 ... num_train_timesteps - 1.")
        _check_choice("beta_schedule", self.beta_schedule, ("linear", "scaled_linear"))
        _check_choice("prediction_type", self.prediction_type, ("epsilon", "v_prediction"))
        _check_choice("timestep_spacing", self.timestep_spacing, SPACINGS)

    @cached_property
    def alpha_bars(self) -> Tensor:
        """alpha_bar_t = product over s <= t of (1 - beta_s), (T,), float64. Computed once; treat it as read-only."""
        power = 0.5 if self.beta_schedule == "scaled_linear" else 1.0
        start, end = self.beta_start**power, self.beta_end**power
        betas = torch.linspace(start, end, self.num_train_timesteps, dtype=torch.float64) ** (1 / power)
        return torch.cumprod(1.0 - betas, dim=0)

    def alpha_bar(self, t: int) -> float:
        """alpha_bar_t for t in 0 ... T - 1; t = -1 is the level after DDIM's last step (see set_alpha_to_one)."""
        if t == -1:
            return 1.0 if self.set_alpha_to_one else self.alpha_bar(0)
        if not 0 <= t < self.num_train_timesteps:
            raise InputError(
                f"Timestep {t} is not on the schedule, which runs from 0 to {self.num_train_timesteps - 1}."
            )
        return self.alpha_bars[t].item()

    def timesteps(self, num_inference_steps: int, spacing: str | None = None) -> list[int]:
        """The timesteps to visit, from high to low, `num_inference_steps` of them (Lin et al. 2024, table 2).

        With T = 1000 and 50 steps, "leading" gives 981, 961, ..., 1 (stride 20, plus the offset), "trailing" gives
        999, 979, ..., 19 and "linspace" 999, 979, 958, ..., 0. Every solver walks the same list; in diffusers
        Euler keeps the fractions of "linspace", and DPM-Solver++ has lists of its own.

        Args:
            spacing: None takes the schedule's own.

        Raises:
            InputError: if the number is not in 1 ... T, or the list would leave the schedule.
        """
        n, T = num_inference_steps, self.num_train_timesteps
        spacing = self.timestep_spacing if spacing is None else spacing
        _check_choice("timestep_spacing", spacing, SPACINGS)
        if not isinstance(n, int) or not 1 <= n <= T:
            raise InputError(f"num_inference_steps is {n!r}; it must be a whole number from 1 to {T}.")
        if spacing == "leading":
            steps = [i * (T // n) + self.steps_offset for i in reversed(range(n))]
        elif spacing == "trailing":
            steps = [round(T - i * (T / n)) - 1 for i in range(n)]
        else:
            steps = [round(i * (T - 1) / max(n - 1, 1)) for i in reversed(range(n))]
        if steps[0] >= T:
            raise InputError(
                f"{n} steps with leading spacing and offset {self.steps_offset} would start at timestep {steps[0]}, "
                f"beyond the last one, {T - 1}; take fewer steps or another timestep_spacing."
            )
        return steps

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4).

        Args:
            x0, noise: (b, ...), of one shape.
            t: one timestep in 0 ... T - 1 for all, or one per picture, (b,).
        """
        t = torch.as_tensor(t).cpu()
        if t.min() < 0 or t.max() >= self.num_train_timesteps:
            raise InputError(f"Noise is added at timesteps 0 to {self.num_train_timesteps - 1}, not at {t.tolist()}.")
        alpha_bar_t = self.alpha_bars[t].view(-1, *[1] * (x0.dim() - 1))  # (b or 1, 1, 1, 1)
        signal, noise_level = (
            scale.to(x0.dtype).to(x0.device) for scale in (alpha_bar_t.sqrt(), (1 - alpha_bar_t).sqrt())
        )
        return signal * x0 + noise_level * noise

    def x0_and_eps(self, prediction: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """What the network's prediction for x_t says about x_0 and about the noise: (x0_hat, eps), of x_t's shape."""
        alpha_bar_t = self.alpha_bar(t)
        signal, noise_level = math.sqrt(alpha_bar_t), math.sqrt(1 - alpha_bar_t)
        if self.prediction_type == "epsilon":
            return (x_t - noise_level * prediction) / signal, prediction  # Ho et al. 2020, eq. 15
        return signal * x_t - noise_level * prediction, signal * prediction + noise_level * x_t  # v; no division


def ddim_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_prev: float) -> Tensor:
    """DDIM: guess x_0, then put less of the same noise back (Song et al. 2021, eq. 12 with sigma_t = 0).

    Args:
        x_t, eps: a noisy latent and the noise predicted in it, (b, c, h, w).
        alpha_bar_t, alpha_bar_prev: signal left now and after the step, alpha_bar_t < alpha_bar_prev <= 1.
    """
    x0_hat = (x_t - math.sqrt(1 - alpha_bar_t) * eps) / math.sqrt(alpha_bar_t)
    return math.sqrt(alpha_bar_prev) * x0_hat + math.sqrt(1 - alpha_bar_prev) * eps


def ddpm_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_prev: float, noise: Tensor) -> Tensor:
    """DDPM: a draw from the posterior q(x_prev | x_t, x_0) at x_0 = x0_hat (Ho et al. 2020, eq. 6-7).

    Args:
        noise: the draw's fresh noise ~ N(0, 1), (b, c, h, w); without effect if alpha_bar_prev is 1.
        Others as in `ddim_step`.
    """
    alpha_t = alpha_bar_t / alpha_bar_prev  # of one step as long as this one
    beta_t = 1 - alpha_t
    x0_hat = (x_t - math.sqrt(1 - alpha_bar_t) * eps) / math.sqrt(alpha_bar_t)
    mean = (
        math.sqrt(alpha_bar_prev) * beta_t / (1 - alpha_bar_t) * x0_hat
        + math.sqrt(alpha_t) * (1 - alpha_bar_prev) / (1 - alpha_bar_t) * x_t
    )  # eq. 7
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar_t) * beta_t  # beta_tilde_t, eq. 7
    return mean + math.sqrt(variance) * noise


def euler_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_prev: float) -> Tensor:
    """Euler's method on the probability flow ODE (Karras et al. 2022, eq. 4 and algorithm 1, no churn).

    In the coordinates y = x / sqrt(alpha_bar), where the noise is simply added, y = x_0 + sigma eps, the ODE is
    dy = eps dsigma. It is DDIM in other coordinates, and equal to it to rounding. Arguments as in `ddim_step`.
    """
    sigma_t = math.sqrt((1 - alpha_bar_t) / alpha_bar_t)
    sigma_prev = math.sqrt((1 - alpha_bar_prev) / alpha_bar_prev)
    y = x_t / math.sqrt(alpha_bar_t)
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
    """DPM-Solver++ 2M: DDIM, but with x_0 extrapolated from this guess and the one before (Lu et al. 2022, alg. 2).

    Args:
        x0_before, alpha_bar_before: x0_hat and alpha_bar_t of the step before; None at the first step, which is
            then of first order (exactly DDIM). So is a step to alpha_bar_prev = 1: it returns x0_hat.
        Others as in `ddim_step`.
    """
    alpha_t, sigma_t = math.sqrt(alpha_bar_t), math.sqrt(1 - alpha_bar_t)
    alpha_prev, sigma_prev = math.sqrt(alpha_bar_prev), math.sqrt(1 - alpha_bar_prev)
    x0_hat = (x_t - sigma_t * eps) / alpha_t
    if x0_before is not None and alpha_bar_before is not None and alpha_bar_prev < 1:
        h = _log_snr(alpha_bar_prev) - _log_snr(alpha_bar_t)
        r = (_log_snr(alpha_bar_t) - _log_snr(alpha_bar_before)) / h
        x0_hat = (1 + 1 / (2 * r)) * x0_hat - 1 / (2 * r) * x0_before  # D_i
    return (
        sigma_prev / sigma_t * x_t + (alpha_prev - alpha_t * sigma_prev / sigma_t) * x0_hat
    )  # -alpha (e^-h - 1) D_i


def _log_snr(alpha_bar: float) -> float:
    """lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)), half the log of the signal-to-noise ratio."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}.")

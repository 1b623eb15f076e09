"""The noise schedule: how much signal and noise a latent holds at each timestep. Notebook 03.

The symbols are the papers': x_t is a latent with noise, eps that noise, x0_hat the estimate of the latent without it,
alpha_bar_t the share of the signal's variance that is left at timestep t. The schedule is frozen: it has no counters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from ldm_course.errors import InputError, check_choice

SPACINGS = ("leading", "trailing", "linspace")
PREDICTIONS = ("epsilon", "v_prediction", "flow_prediction")


@dataclass(frozen=True)
class NoiseSchedule:
    """How the noise grows; the defaults are Stable Diffusion 1.5's. Names are those of diffusers' config files.

    Args:
        num_train_timesteps: T; timesteps run from 0 (nearly clean) to T - 1 (nearly pure noise).
        beta_start, beta_end: the share of noise that one training step mixes in, at t = 0 and at t = T - 1.
        beta_schedule: in between, "linear" in beta, or "scaled_linear", that is linear in sqrt(beta).
        prediction_type: the network predicts eps ("epsilon"), or v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t)
            x_0 ("v_prediction"; Salimans and Ho 2022, appendix D), or the velocity u = eps - x_0 of the straight path
            ("flow_prediction"; Liu et al. 2023, eq. 1, whose time runs from noise to data). It always sees x_t.
        timestep_spacing, steps_offset: see `timesteps`.
        set_alpha_to_one: after the last step alpha_bar is 1, no noise is left; otherwise it is alpha_bar_0, as
            trained. Stable Diffusion says False, and only DDIM obeys: see `samplers.final_alpha_bar`.

    Raises InputError if a field is out of range.
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
        start, end, T = self.beta_start, self.beta_end, self.num_train_timesteps
        if not isinstance(T, Integral) or not 1 <= T <= 100_000:
            raise InputError(f"num_train_timesteps is {T!r}; it must be a whole number from 1 to 100000.")
        if not 0 < start <= end < 1:
            raise InputError(f"beta_start {start} and beta_end {end} must satisfy 0 < beta_start <= beta_end < 1.")
        if not 0 <= self.steps_offset < T:
            raise InputError(f"steps_offset is {self.steps_offset}; it must be a timestep, from 0 to {T - 1}.")
        check_choice("beta_schedule", self.beta_schedule, ("linear", "scaled_linear"))
        check_choice("prediction_type", self.prediction_type, PREDICTIONS)
        check_choice("timestep_spacing", self.timestep_spacing, SPACINGS)

    @cached_property
    def alpha_bars(self) -> Tensor:
        """alpha_bar_t = product over s <= t of (1 - beta_s), (T,), float64, on the CPU. Do not write to it."""
        power = 2 if self.beta_schedule == "scaled_linear" else 1
        start, end = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        betas = torch.linspace(start, end, self.num_train_timesteps, dtype=torch.float64, device="cpu") ** power
        return torch.cumprod(1 - betas, dim=0)

    @cached_property
    def flow_times(self) -> Tensor:
        """The time s of each timestep on the straight path x_s = (1 - s) x_0 + s eps, (T,), float64, on the CPU.

        x_t and x_s have one signal-to-noise ratio, and so differ only in size: x_t = (sqrt(alpha_bar_t) +
        sqrt(1 - alpha_bar_t)) x_s. The times grow from almost 0, and end where the schedule does: Stable Diffusion's
        at 0.936. Do not write to it.
        """
        signal, sigma = self.alpha_bars.sqrt(), (1 - self.alpha_bars).sqrt()
        return sigma / (signal + sigma)

    def timesteps_at(self, s: Tensor) -> Tensor:
        """The timesteps whose `flow_times` are nearest to s, which is of any shape, in [0, 1]; int64, on the CPU.

        Beyond the schedule's ends it is the timestep at that end. Raises InputError for an s outside [0, 1].
        """
        s = s.to("cpu", torch.float64)
        if not bool(((s >= 0) & (s <= 1)).all()):
            raise InputError("The times of a flow run from 0, no noise, to 1, nothing but noise.")
        between = (self.flow_times[1:] + self.flow_times[:-1]) / 2
        return torch.searchsorted(between, s.contiguous())

    def alpha_bar(self, t: int) -> float:
        """alpha_bar_t for t in 0 ... T - 1; for t = -1 the level after DDIM's last step. InputError for others."""
        if t == -1:
            return 1.0 if self.set_alpha_to_one else self.alpha_bar(0)
        self.check_timesteps(t)
        return self.alpha_bars[t].item()

    def timesteps(self, num_inference_steps: int, spacing: str | None = None) -> list[int]:
        """The timesteps that are visited, from high to low, the same for all samplers (Lin et al. 2024, table 2).

        50 of 1000 are 981, 961, ..., 1 with "leading" spacing (a stride of 20, plus steps_offset), 999, 979, ..., 19
        with "trailing" and 999, 979, 958, ..., 0 with "linspace"; None is the schedule's own. (In diffusers Euler
        keeps the fractions of "linspace", DPM-Solver++ has other lists, and "trailing" may end with a -1.)

        Raises InputError unless the number is from 1 to T and all timesteps are below T.
        """
        n, T = num_inference_steps, self.num_train_timesteps
        spacing = self.timestep_spacing if spacing is None else spacing
        check_choice("timestep_spacing", spacing, SPACINGS)
        if not isinstance(n, Integral) or not 1 <= n <= T:
            raise InputError(f"num_inference_steps is {n!r}; it must be a whole number from 1 to {T}.")
        n = int(n)  # numpy's small integers would overflow below
        if spacing == "trailing":
            return [round(t) - 1 for t in np.arange(T, 0, -T / n)[:n]]
        if spacing == "linspace":
            return [round(t) for t in np.linspace(0, T - 1, n)[::-1]]
        if (n - 1) * (T // n) + self.steps_offset >= T:
            raise InputError(
                f"{n} steps with leading spacing and offset {self.steps_offset} would start beyond the last "
                f"timestep, {T - 1}; use fewer steps, or another timestep_spacing."
            )
        return [i * (T // n) + self.steps_offset for i in reversed(range(n))]

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4).

        x0 and noise are (b, ...); t is a timestep, or one per image, (b,). InputError unless 0 <= t < T.
        """
        signal, sigma = self._weights(t, x0)
        return signal * x0 + sigma * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0 (Salimans and Ho 2022), as in `add_noise`."""
        signal, sigma = self._weights(t, x0)
        return signal * noise - sigma * x0

    def x0_and_eps(self, prediction: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """(x0_hat, eps): what a prediction for x_t says of x_0 and of the noise. All are (b, c, h, w).

        Raises InputError as `alpha_bar`.
        """
        signal, sigma = math.sqrt(self.alpha_bar(t)), math.sqrt(1 - self.alpha_bar(t))
        if self.prediction_type == "epsilon":
            return (x_t - sigma * prediction) / signal, prediction  # Ho et al. 2020, eq. 15
        if self.prediction_type == "flow_prediction":  # x_t = signal x_0 + sigma eps and u = eps - x_0, solved
            return (x_t - sigma * prediction) / (signal + sigma), (x_t + signal * prediction) / (signal + sigma)
        return signal * x_t - sigma * prediction, signal * prediction + sigma * x_t  # without dividing by signal

    def check_timesteps(self, t: int | Tensor) -> None:
        """Raise InputError unless 0 <= t < T, for one timestep or a tensor of them."""
        lowest, highest = (int(t.min()), int(t.max())) if isinstance(t, Tensor) else (t, t)
        if lowest < 0 or highest >= self.num_train_timesteps:
            wrong = lowest if lowest < 0 else highest
            raise InputError(f"There is no timestep {wrong}; timesteps run from 0 to {self.num_train_timesteps - 1}.")

    def _weights(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), (b or 1, 1, ...), of the dtype and on the device of `like`."""
        t = torch.as_tensor(t, device="cpu").reshape(-1)
        self.check_timesteps(t)
        alpha_bar_t = self.alpha_bars[t].view(-1, *[1] * (like.dim() - 1))
        return alpha_bar_t.sqrt().to(like), (1 - alpha_bar_t).sqrt().to(like)

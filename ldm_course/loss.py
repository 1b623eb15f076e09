"""What the UNet is trained for: to predict the noise in a latent, given the timestep and the text. Notebook 02.

Or v, or the velocity of a flow: one loss, by the schedule's `prediction_type`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ldm_course.schedule import NoiseSchedule


def diffusion_loss(
    unet: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: NoiseSchedule,
    x0: Tensor,
    context: Tensor,
    *,
    min_snr_gamma: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The training loss of one batch: the mean squared error of the prediction (Ho et al. 2020, eq. 14 and alg. 1).

    Args:
        unet: (x_t, t, context) -> prediction; x_t is (b, c, h, w), t (b,), context (b, 77, d).
        schedule: its `prediction_type` says whether the target is the noise, v, or the velocity noise - x0. For the
            velocity this is conditional flow matching (Lipman et al. 2023, eq. 9) on the schedule's own levels.
        x0: scaled latents, (b, c, h, w).
        context: the text encoder's vectors, (b, 77, d); see `drop_captions`.
        min_snr_gamma: weight each timestep by min(SNR, gamma) / SNR, or / (SNR + 1) for v (Hang et al. 2023, eq. 9),
            or / (sqrt(SNR) + 1)^2 for the velocity, which is the same weight on the error of x0; None is 1.
        generator: draws timesteps and noise, on the CPU, so that a seed means the same everywhere; None is torch's
            global one.
    Timesteps are drawn evenly, and for the velocity evenly in `schedule.flow_times`.
    Returns a scalar that gradients flow through.
    """
    b = len(x0)
    if schedule.prediction_type == "flow_prediction":
        s = schedule.flow_times[-1] * torch.rand(b, generator=generator, dtype=torch.float64, device="cpu")
        t = schedule.timesteps_at(s)
    else:
        t = torch.randint(schedule.num_train_timesteps, (b,), generator=generator, device="cpu")
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float32, device="cpu").to(x0)
    x_t = schedule.add_noise(x0, noise, t)
    prediction = unet(x_t, t.to(x0.device), context).float()
    if schedule.prediction_type == "epsilon":
        target = noise
    elif schedule.prediction_type == "v_prediction":
        target = schedule.velocity(x0, noise, t)
    else:
        target = noise - x0
    error = (prediction - target).square().mean(dim=(1, 2, 3))  # (b,)
    if min_snr_gamma is not None:
        snr = schedule.alpha_bars[t] / (1 - schedule.alpha_bars[t])
        norm = {"epsilon": snr, "v_prediction": snr + 1, "flow_prediction": (snr.sqrt() + 1) ** 2}
        error = (snr.clamp(max=min_snr_gamma) / norm[schedule.prediction_type]).to(error) * error
    return error.mean()


def drop_captions(context: Tensor, empty: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Replace each caption by the empty one with probability p, for classifier-free guidance (Ho and Salimans 2022).

    context is (b, 77, d), empty (1, 77, d) or (77, d): the vectors of the empty text.
    """
    dropped = torch.rand(len(context), generator=generator, dtype=torch.float32, device="cpu") < p
    return torch.where(dropped[:, None, None].to(context.device), empty, context)

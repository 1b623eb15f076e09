"""The noise schedule is diffusers': its levels, its timesteps, its noising. Where it differs, a test says how."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler
from helpers import noise, relative_error

from ldm_course.schedule import SPACINGS, NoiseSchedule

SHAPE = (2, 4, 5, 3)


def diffusers_schedule(spacing: str = "leading", **settings) -> DDIMScheduler:
    """diffusers' scheduler with the settings of our default schedule."""
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012} | settings
    return DDIMScheduler(timestep_spacing=spacing, steps_offset=1, clip_sample=False, **settings)


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_levels_and_noising_are_diffusers(beta_schedule, prediction):
    ours = NoiseSchedule(beta_schedule=beta_schedule, prediction_type=prediction)
    theirs = diffusers_schedule(beta_schedule=beta_schedule, prediction_type=prediction)
    assert ours.alpha_bars.dtype == torch.float64
    assert relative_error(ours.alpha_bars.float(), theirs.alphas_cumprod) <= 1e-5
    x0, eps, t = noise(3, 4, 5, 3), noise(3, 4, 5, 3, seed=1), torch.tensor([0, 500, 999])
    assert relative_error(ours.add_noise(x0, eps, t), theirs.add_noise(x0, eps, t)) <= 1e-5
    assert relative_error(ours.velocity(x0, eps, t), theirs.get_velocity(x0, eps, t)) <= 1e-5
    for i in range(3):
        assert torch.equal(ours.add_noise(x0, eps, int(t[i]))[i], ours.add_noise(x0, eps, t)[i])
    assert ours.add_noise(x0.half(), eps.half(), 500).dtype == torch.float16


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_x0_and_eps_undo_add_noise(prediction):
    schedule = NoiseSchedule(prediction_type=prediction)
    x0, eps = noise(*SHAPE).double(), noise(*SHAPE, seed=1).double()
    for t in (0, 500, 999):
        x_t = schedule.add_noise(x0, eps, t)
        target = eps if prediction == "epsilon" else schedule.velocity(x0, eps, t)
        x0_hat, eps_hat = schedule.x0_and_eps(target, x_t, t)
        assert relative_error(x0_hat, x0) <= 1e-12 and relative_error(eps_hat, eps) <= 1e-12


@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_are_diffusers(spacing):
    """For every number of steps. Rounding in diffusers' "trailing" can add a timestep -1, as for 61; we drop it."""
    ours, theirs = NoiseSchedule(timestep_spacing=spacing), diffusers_schedule(spacing)
    dropped = 0
    for n in range(1, 1000 if spacing == "leading" else 1001):
        theirs.set_timesteps(n)
        reference = theirs.timesteps.tolist()
        if reference[-1] == -1:
            dropped += 1
            del reference[-1]
        timesteps = ours.timesteps(n)
        assert timesteps == NoiseSchedule().timesteps(n, spacing) == reference and len(timesteps) == n
        assert timesteps == sorted(set(timesteps), reverse=True) and all(type(t) is int for t in timesteps)
    assert (dropped > 0) == (spacing == "trailing")


def test_timesteps_that_are_quoted():
    schedule = NoiseSchedule()
    assert schedule.timesteps(50)[:2] == [981, 961] and schedule.timesteps(50)[-1] == 1
    assert schedule.timesteps(1) == [1] and schedule.timesteps(2) == [501, 1]
    assert schedule.timesteps(50, "trailing")[:2] == [999, 979] and schedule.timesteps(50, "trailing")[-1] == 19
    assert schedule.timesteps(50, "linspace")[:3] == [999, 979, 958] and schedule.timesteps(50, "linspace")[-1] == 0


def test_levels_that_are_quoted():
    assert math.sqrt(NoiseSchedule().alpha_bar(999)) == pytest.approx(0.068, abs=5e-4)
    assert NoiseSchedule().alpha_bar(-1) == NoiseSchedule().alpha_bar(0)
    assert math.sqrt(1 - NoiseSchedule().alpha_bar(-1)) == pytest.approx(0.029, abs=5e-4)
    assert NoiseSchedule(set_alpha_to_one=True).alpha_bar(-1) == 1.0

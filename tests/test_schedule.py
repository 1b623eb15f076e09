"""The noise schedule is diffusers': its levels, its timesteps, its noising. Where it differs, a test says how."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler
from helpers import noise, one_sentence, relative_error

from ldm_course.schedule import PREDICTIONS, SPACINGS, NoiseSchedule

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


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_x0_and_eps_undo_add_noise(prediction):
    schedule = NoiseSchedule(prediction_type=prediction)
    x0, eps = noise(*SHAPE).double(), noise(*SHAPE, seed=1).double()
    for t in (0, 500, 999):
        x_t = schedule.add_noise(x0, eps, t)
        targets = {"epsilon": eps, "v_prediction": schedule.velocity(x0, eps, t), "flow_prediction": eps - x0}
        x0_hat, eps_hat = schedule.x0_and_eps(targets[prediction], x_t, t)
        assert relative_error(x0_hat, x0) <= 1e-12 and relative_error(eps_hat, eps) <= 1e-12


def test_an_error_of_the_velocity_is_never_magnified():
    """An error in eps grows 14.6 times on its way to x0_hat at t = 999; one in the velocity shrinks at every t."""
    x_t, error = noise(*SHAPE).double(), noise(*SHAPE, seed=1).double()
    for prediction, largest in (("epsilon", 14.6), ("v_prediction", 1.0), ("flow_prediction", 1.0)):
        schedule = NoiseSchedule(prediction_type=prediction)
        changes = [(schedule.x0_and_eps(error, x_t, t)[0] - schedule.x0_and_eps(0 * error, x_t, t)[0]) / error
                   for t in range(1000)]  # fmt: skip
        assert max(change.abs().max().item() for change in changes) == pytest.approx(largest, rel=0.07)


# The straight path of flows


def test_flow_times_have_the_signal_to_noise_ratio_of_their_timesteps():
    """x_t is x_s = (1 - s) x_0 + s eps at another size, and so is the noise of both in x_0's units."""
    schedule, x0, eps = NoiseSchedule(), noise(*SHAPE).double(), noise(*SHAPE, seed=1).double()
    for t in (0, 1, 500, 999):
        s, alpha_bar = schedule.flow_times[t].item(), schedule.alpha_bar(t)
        assert ((1 - s) / s) ** 2 == pytest.approx(alpha_bar / (1 - alpha_bar))
        size = math.sqrt(alpha_bar) + math.sqrt(1 - alpha_bar)
        assert relative_error(size * ((1 - s) * x0 + s * eps), schedule.add_noise(x0, eps, t)) <= 1e-12
    assert schedule.flow_times.dtype == torch.float64 and (schedule.flow_times.diff() > 0).all()
    assert schedule.flow_times[-1].item() == pytest.approx(0.936, abs=5e-4)


@pytest.mark.parametrize("T", [1, 2, 1000])
def test_timesteps_at_are_the_nearest(T):
    schedule = NoiseSchedule(num_train_timesteps=T, steps_offset=0)
    assert torch.equal(schedule.timesteps_at(schedule.flow_times), torch.arange(T))
    s = torch.rand(3, 70, generator=torch.Generator().manual_seed(0))
    t = schedule.timesteps_at(s)
    best = (schedule.flow_times - s.double()[..., None]).abs().amin(dim=-1)
    assert t.dtype == torch.int64 and torch.equal((schedule.flow_times[t] - s.double()).abs(), best)
    assert schedule.timesteps_at(torch.tensor([0.0, 1.0])).tolist() == [0, T - 1]
    for wrong in (-0.01, 1.01, math.nan):
        with one_sentence("from 0", "to 1"):
            schedule.timesteps_at(torch.tensor([0.5, wrong]))


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

"""Our four samplers follow diffusers' paths, and where they deliberately do not, a test here says how they differ."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from helpers import noise, relative_error
from torch import Tensor

from ldm_course.pipelines import SAMPLERS
from ldm_course.samplers import State, Step, ddim, ddpm, dpmpp_2m, euler, final_alpha_bar, flow_euler
from ldm_course.sampling import denoise
from ldm_course.schedule import PREDICTIONS, NoiseSchedule

PER_STEP, FULL_RUN = 1e-5, 5e-5
SHAPE = (2, 4, 5, 3)
RUNS = [("leading", n) for n in (7, 20, 50, 999)] + [("trailing", n) for n in (1, 2, 10, 50)]
BETAS = {
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012},
}
CASES = [(betas, prediction) for betas in BETAS for prediction in ("epsilon", "v_prediction")]
EACH = SAMPLERS | {"flow": flow_euler}
each_sampler = pytest.mark.parametrize("step", EACH.values(), ids=EACH)


def both(cls, spacing: str, betas: str, prediction: str, set_alpha_to_one: bool = True, **theirs):
    """Our schedule, and diffusers' scheduler of the same settings."""
    shared = {**BETAS[betas], "prediction_type": prediction, "timestep_spacing": spacing, "steps_offset": 1}
    if cls is DDIMScheduler:
        theirs |= {"set_alpha_to_one": set_alpha_to_one, "clip_sample": False}
    if cls is DDPMScheduler:
        theirs |= {"clip_sample": False}
    return NoiseSchedule(**shared, set_alpha_to_one=set_alpha_to_one), cls(**shared, **theirs)


def network(x_t: Tensor, t: float) -> Tensor:
    """Stands for the UNet: bounded, and it looks at x_t and at t."""
    return 0.7 * noise(*SHAPE, seed=9) + 0.3 * torch.sin(x_t + 0.01 * float(t))


def state(schedule: NoiseSchedule, prediction: Tensor, x_t: Tensor, t: int) -> State:
    """What the loop makes of a prediction."""
    x0_hat, eps = schedule.x0_and_eps(prediction, x_t, t)
    return State(t, x_t, eps, x0_hat, schedule.alpha_bar(t))


def no_noise() -> Tensor:
    raise AssertionError("this sampler draws no noise")


def our_states(schedule: NoiseSchedule, x_T: Tensor, timesteps: list[int], step: Step, seed: int = 0) -> list[State]:
    """Through `denoise`, the one loop."""
    model = SimpleNamespace(
        unet=lambda x_t, t, context: network(x_t, t),
        vae=SimpleNamespace(downscale=8),
        schedule=schedule,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    generator = torch.Generator().manual_seed(seed)
    context = torch.zeros(len(x_T), 1, 1)
    return list(denoise(model, x_T, context, timesteps, step=step, generator=generator))


def our_run(*args, **options) -> Tensor:
    return our_states(*args, **options)[-1].x_t


def their_run(theirs, x_T: Tensor, seed: int = 0) -> Tensor:
    """diffusers' loop. `scale_model_input` gives x_t from Euler's own coordinates."""
    generator = torch.Generator().manual_seed(seed)
    extra = {"generator": generator} if isinstance(theirs, DDPMScheduler) else {}
    x = x_T
    if isinstance(theirs, EulerDiscreteScheduler):
        x = x_T * (theirs.sigmas[0] ** 2 + 1) ** 0.5
    for t in theirs.timesteps:
        x = theirs.step(network(theirs.scale_model_input(x, t), t), t, x, **extra).prev_sample
    return x


# Whole runs


CLASSES = {
    ddim: DDIMScheduler,
    ddpm: DDPMScheduler,
    euler: EulerDiscreteScheduler,
    dpmpp_2m: DPMSolverMultistepScheduler,
}


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize(
    "step, set_alpha_to_one, spacing, n",
    [
        (step, to_one, *run)
        for step, to_one in [(ddim, True), (ddim, False), (ddpm, True), (euler, True), (dpmpp_2m, True)]
        for run in RUNS
        if (step, run[1]) != (dpmpp_2m, 999)  # test_dpmpp_run_of_999_steps
    ],
)
def test_runs(step, set_alpha_to_one, spacing, n, betas, prediction):
    """On diffusers' timesteps; DPM-Solver++ on ours, as diffusers' own list is another one."""
    ours, theirs = both(CLASSES[step], spacing, betas, prediction, set_alpha_to_one)
    timesteps = ours.timesteps(n)
    theirs.set_timesteps(**{"timesteps": timesteps} if step is dpmpp_2m else {"num_inference_steps": n})
    assert timesteps == theirs.timesteps.tolist()
    states = our_states(ours, noise(*SHAPE), timesteps, step)
    if step is ddim and n == 999 and set_alpha_to_one:  # the last step differs: test_ddim_ends_at_the_end
        theirs.timesteps = theirs.timesteps[:-1]
        states.pop()
    assert relative_error(states[-1].x_t, their_run(theirs, noise(*SHAPE))) <= FULL_RUN


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_dpmpp_run_on_diffusers_timesteps(spacing):
    """diffusers spaces DPM-Solver++ as if there were one step more; our loop takes that list as any other."""
    ours, theirs = both(DPMSolverMultistepScheduler, spacing, "scaled_linear", "epsilon")
    theirs.set_timesteps(20)
    timesteps = theirs.timesteps.tolist()
    assert (timesteps == ours.timesteps(20)) == (spacing == "trailing")
    result, reference = our_run(ours, noise(*SHAPE), timesteps, dpmpp_2m), their_run(theirs, noise(*SHAPE))
    assert relative_error(result, reference) <= FULL_RUN


@pytest.mark.parametrize("betas, prediction", CASES)
def test_dpmpp_run_of_999_steps(betas, prediction):
    """diffusers answers NaN here, so the reference is the paper's algorithm 2 as printed, in float64."""
    ours, _ = both(DPMSolverMultistepScheduler, "leading", betas, prediction)
    timesteps = ours.timesteps(999)
    alphas, sigmas = ours.alpha_bars.sqrt().numpy(), (1 - ours.alpha_bars).sqrt().numpy()
    lambdas = np.log(alphas / sigmas)
    x, data, before = noise(*SHAPE).double(), None, None
    for i, t in enumerate(timesteps):
        data_before, (data, _) = data, ours.x0_and_eps(network(x, t).double(), x, t)
        if i == len(timesteps) - 1:
            x = data
            break
        t_prev = timesteps[i + 1]
        h = lambdas[t_prev] - lambdas[t]
        d = data
        if data_before is not None:
            r = (lambdas[t] - lambdas[before]) / h
            d = (1 + 1 / (2 * r)) * data - 1 / (2 * r) * data_before
        x = sigmas[t_prev] / sigmas[t] * x - alphas[t_prev] * (np.exp(-h) - 1) * d
        before = t
    assert relative_error(our_run(ours, noise(*SHAPE), timesteps, dpmpp_2m), x.float()) <= FULL_RUN


# Single steps


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize("spacing, n", [("leading", 50), ("leading", 999), ("trailing", 10)])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_single_steps(spacing, n, betas, prediction, set_alpha_to_one):
    """Every step alone, from the same x_t, so that errors cannot cancel or grow."""
    ours, their_ddim = both(DDIMScheduler, spacing, betas, prediction, set_alpha_to_one)
    _, their_ddpm = both(DDPMScheduler, spacing, betas, prediction)
    _, their_euler = both(EulerDiscreteScheduler, spacing, betas, prediction)
    for theirs in (their_ddim, their_ddpm, their_euler):
        theirs.set_timesteps(n)
    timesteps = ours.timesteps(n)
    for i, t in list(enumerate(timesteps))[:: max(1, n // 20)] + [(n - 1, timesteps[-1])]:
        last = i == n - 1
        x_t, model_output, fresh = noise(*SHAPE, seed=t), noise(*SHAPE, seed=t + 1), noise(*SHAPE, seed=t + 2)
        now = state(ours, model_output, x_t, t)
        alpha_bar = ours.alpha_bar(max(t - 1000 // n, -1))  # the next listed, but for test_ddim_ends_at_the_end
        reference = their_ddim.step(model_output, t, x_t)
        assert relative_error(now.x0_hat, reference.pred_original_sample) <= PER_STEP
        assert relative_error(ddim(now, alpha_bar, None, no_noise), reference.prev_sample) <= PER_STEP

        alpha_bar = 1.0 if last else alpha_bar
        reference = their_ddpm.step(model_output, t, x_t, generator=torch.Generator().manual_seed(t + 2)).prev_sample
        assert relative_error(ddpm(now, alpha_bar, None, lambda: fresh), reference) <= PER_STEP  # noqa: B023

        their_euler._step_index = i
        y = x_t * (their_euler.sigmas[i] ** 2 + 1) ** 0.5
        their_euler.is_scale_input_called = True
        reference = their_euler.step(model_output, their_euler.timesteps[i], y).prev_sample * alpha_bar**0.5
        assert relative_error(euler(now, alpha_bar, None, no_noise), reference) <= PER_STEP


# Flows


@pytest.mark.parametrize("n, shift", [(1, 1.0), (5, 1.0), (20, 3.0), (50, 1.0)])
def test_flow_euler_is_diffusers_flow_matching(n, shift):
    """On diffusers' own times, in its coordinates x_s = (1 - s) x_0 + s eps, with a network that predicts u."""
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(0.98, 0.98 / n, n))
    ours = x_s = noise(*SHAPE)
    for time, s, s_next in zip(theirs.timesteps, theirs.sigmas.tolist(), theirs.sigmas[1:].tolist()):
        u = network(ours, time)
        x0_hat, eps = ours - s * u, ours + (1 - s) * u
        now = State(0, sum_of_weights(alpha_bar_at(s)) * ours, eps, x0_hat, alpha_bar_at(s))
        ours = flow_euler(now, alpha_bar_at(s_next), None, no_noise) / sum_of_weights(alpha_bar_at(s_next))
        x_s = theirs.step(network(x_s, time), time, x_s).prev_sample
        assert relative_error(ours, x_s) <= FULL_RUN


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing, n", RUNS)
def test_a_run_of_flow_euler_through_the_loop_is_diffusers(spacing, n, prediction):
    """On our timesteps, whatever the network predicts; diffusers' scheduler gets the velocity eps - x0_hat."""
    ours, theirs = NoiseSchedule(prediction_type=prediction), FlowMatchEulerDiscreteScheduler()
    timesteps = ours.timesteps(n, spacing)
    theirs.set_timesteps(sigmas=ours.flow_times[timesteps].numpy())
    x_s = noise(*SHAPE) / sum_of_weights(ours.alpha_bar(timesteps[0]))
    for t, time in zip(timesteps, theirs.timesteps):
        x_t = sum_of_weights(ours.alpha_bar(t)) * x_s
        x0_hat, eps = ours.x0_and_eps(network(x_t, t), x_t, t)
        x_s = theirs.step(eps - x0_hat, time, x_s).prev_sample
    assert relative_error(our_run(ours, noise(*SHAPE), timesteps, flow_euler), x_s) <= FULL_RUN


def alpha_bar_at(s: float) -> float:
    """The level of the same signal-to-noise ratio as (1 - s) x_0 + s eps."""
    return (1 - s) ** 2 / ((1 - s) ** 2 + s**2)


def sum_of_weights(alpha_bar: float) -> float:
    """x_t is x_s times this."""
    return math.sqrt(alpha_bar) + math.sqrt(1 - alpha_bar)


# Deliberate differences from diffusers


def test_ddim_steps_to_the_next_listed_timestep():
    """diffusers goes to t - 1000 // n, which for 7 "trailing" steps is not on the list; we go to the next on it."""
    ours, theirs = both(DDIMScheduler, "trailing", "scaled_linear", "epsilon")
    theirs.set_timesteps(7)
    timesteps = ours.timesteps(7)
    x_t, eps, (t, t_prev) = noise(*SHAPE), noise(*SHAPE, seed=1), timesteps[:2]
    assert (t, t_prev, t - 1000 // 7) == (999, 856, 857)
    reference, now = theirs.step(eps, t, x_t).prev_sample, state(ours, eps, x_t, t)
    assert relative_error(ddim(now, ours.alpha_bar(857), None, no_noise), reference) <= PER_STEP
    assert relative_error(ddim(now, ours.alpha_bar(t_prev), None, no_noise), reference) > 100 * PER_STEP


def test_ddim_ends_at_the_end():
    """After "leading" with a stride of 1, and so a last timestep of 1, diffusers ends at t = 0, not at alpha_bar 1,
    whatever set_alpha_to_one says; ours ends where the schedule says."""
    ours, theirs = both(DDIMScheduler, "leading", "scaled_linear", "epsilon", set_alpha_to_one=True)
    theirs.set_timesteps(999)
    x_t, eps = noise(*SHAPE), noise(*SHAPE, seed=1)
    reference, now = theirs.step(eps, 1, x_t), state(ours, eps, x_t, 1)
    assert relative_error(ddim(now, ours.alpha_bar(0), None, no_noise), reference.prev_sample) <= PER_STEP
    ends = ddim(now, ours.alpha_bar(-1), None, no_noise)
    assert relative_error(ends, reference.pred_original_sample) <= PER_STEP
    assert relative_error(ends, reference.prev_sample) > 0.01


def test_euler_visits_whole_timesteps():
    """diffusers' Euler keeps the fractions of "linspace", and takes sigmas between two training steps."""
    ours, theirs = both(EulerDiscreteScheduler, "linspace", "scaled_linear", "epsilon")
    theirs.set_timesteps(50)
    fractions = theirs.timesteps.tolist()
    assert fractions != ours.timesteps(50) and [round(t) for t in fractions] == ours.timesteps(50)


def test_euler_starts_from_unit_variance():
    """diffusers starts Euler from sigma_max * noise under "trailing", in our coordinates 0.998 of the noise."""
    ours, theirs = both(EulerDiscreteScheduler, "trailing", "scaled_linear", "epsilon")
    theirs.set_timesteps(10)
    start = theirs.init_noise_sigma * math.sqrt(ours.alpha_bar(999))
    assert start == pytest.approx(math.sqrt(1 - ours.alpha_bar(999)), rel=1e-5)
    assert 1e-3 < 1 - start < 3e-3


# What the mathematics promises


@pytest.mark.parametrize("coordinates", [euler, flow_euler])
@pytest.mark.parametrize("spacing, n", RUNS)
def test_euler_is_ddim_in_other_coordinates(spacing, n, coordinates):
    """Euler's method follows a straight line, and straight lines of x_0 and eps are straight in all of them."""
    schedule = NoiseSchedule(set_alpha_to_one=True)
    timesteps = schedule.timesteps(n, spacing)
    by_ddim, by_euler = (our_run(schedule, noise(*SHAPE), timesteps, step) for step in (ddim, coordinates))
    assert relative_error(by_euler, by_ddim) <= 2e-5


def test_dpmpp_without_a_state_before_is_ddim():
    schedule, x_t = NoiseSchedule(), noise(*SHAPE)
    for t_before, t, t_next in [(990, 950, 850), (700, 600, 450), (60, 30, 5)]:
        now, alpha_bar = state(schedule, noise(*SHAPE, seed=1), x_t, t), schedule.alpha_bar(t_next)
        before = state(schedule, noise(*SHAPE, seed=2), x_t, t_before)
        first = ddim(now, alpha_bar, None, no_noise)
        assert torch.equal(dpmpp_2m(now, alpha_bar, None, no_noise), first)
        assert relative_error(dpmpp_2m(now, alpha_bar, before, no_noise), first) > 1e-3
        same = replace(before, x0_hat=now.x0_hat)  # nothing to extrapolate: the solver's own form of DDIM
        assert relative_error(dpmpp_2m(now, alpha_bar, same, no_noise), first) <= 1e-5


@pytest.mark.parametrize("prediction", PREDICTIONS)
@each_sampler
def test_a_step_to_the_end_returns_x0_hat(step, prediction):
    """Exactly, and so the x0_hat of the loop, whatever the network predicts; Euler gets there from eps."""
    schedule, x_t = NoiseSchedule(prediction_type=prediction), noise(*SHAPE)
    now = state(schedule, noise(*SHAPE, seed=1), x_t, 500)
    before = state(schedule, noise(*SHAPE, seed=2), x_t, 900)
    end = step(now, 1.0, before, lambda: noise(*SHAPE, seed=3))
    exact = step not in (euler, flow_euler)
    assert torch.equal(end, now.x0_hat) if exact else relative_error(end, now.x0_hat) <= 1e-5


SAMPLES = 20_000
MEAN, STD = 1.5, 0.4  # of data for which the best possible network is known in closed form


def best_eps(x: Tensor, alpha_bar_t: float) -> Tensor:
    """E[eps | x_t = x] for data ~ N(MEAN, STD^2)."""
    variance = alpha_bar_t * STD**2 + 1 - alpha_bar_t
    return math.sqrt(1 - alpha_bar_t) * (x - math.sqrt(alpha_bar_t) * MEAN) / variance


def walk(step: Step, x: Tensor, alpha_bars: list[float]) -> Tensor:
    """Steps with the best network from level to level, in float64."""
    generator, before = torch.Generator().manual_seed(1), None
    for a, b in zip(alpha_bars, alpha_bars[1:]):
        eps = best_eps(x, a)
        now = State(0, x, eps, (x - math.sqrt(1 - a) * eps) / math.sqrt(a), a)
        x = step(now, b, before, lambda: torch.randn(SAMPLES, generator=generator, dtype=torch.float64))
        before = now
    return x


@each_sampler
def test_samples_have_the_right_distribution(step):
    """Noised data in, N(1.5, 0.4^2) out: mean and spread of 20,000 samples."""
    schedule = NoiseSchedule()
    alpha_bars = [schedule.alpha_bar(t) for t in schedule.timesteps(500, "trailing")] + [1.0]
    x_T = schedule.add_noise(MEAN + STD * noise(SAMPLES).double(), noise(SAMPLES, seed=1).double(), 999)
    x = walk(step, x_T, alpha_bars)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(STD, abs=0.01)


def test_order_of_convergence():
    """Twice the steps: half the error with DDIM, a quarter with DPM-Solver++; the exact path is known here."""

    def error(step: Step, n: int) -> float:
        alpha_bars = torch.sigmoid(torch.linspace(-5, 3, n + 1, dtype=torch.float64)).tolist()  # even in log-SNR
        a, b = alpha_bars[0], alpha_bars[-1]
        x = noise(1000).double()
        spread = math.sqrt((b * STD**2 + 1 - b) / (a * STD**2 + 1 - a))
        exact = math.sqrt(b) * MEAN + spread * (x - math.sqrt(a) * MEAN)
        return relative_error(walk(step, x, alpha_bars), exact)

    assert error(ddim, 100) / error(ddim, 200) == pytest.approx(2, abs=0.2)
    assert error(dpmpp_2m, 100) / error(dpmpp_2m, 200) == pytest.approx(4, abs=0.8)
    assert error(dpmpp_2m, 100) < error(ddim, 100) / 10


def test_levels_at_the_end():
    """DDIM, and a step of your own, stop at alpha_bar_0 as SD was trained. The others stop at 1."""
    sd, to_one = NoiseSchedule(), NoiseSchedule(set_alpha_to_one=True)
    for step in (*EACH.values(), lambda *arguments: ddim(*arguments)):
        ends_at_1 = step in (ddpm, euler, flow_euler, dpmpp_2m)
        assert final_alpha_bar(sd, step) == (1.0 if ends_at_1 else sd.alpha_bar(0))
        assert final_alpha_bar(to_one, step) == 1.0
        ends = [our_states(schedule, noise(*SHAPE), [500, 1], step)[-1] for schedule in (sd, to_one)]
        assert [end.alpha_bar for end in ends] == [final_alpha_bar(sd, step), 1.0]
        assert torch.equal(*(end.x_t for end in ends)) == ends_at_1


@each_sampler
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_steps_keep_the_dtype(step, dtype):
    before, now = (
        State(t, *(noise(*SHAPE, seed=t + i).to(dtype) for i in range(3)), alpha_bar=alpha_bar)
        for t, alpha_bar in ((200, 0.2), (100, 0.3))
    )
    assert step(now, 0.5, before, lambda: noise(*SHAPE).to(dtype)).dtype == dtype

"""Our four steps walk diffusers' paths, and where they deliberately do not, a test here says how they differ."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from helpers import noise, one_sentence, relative_error
from torch import Tensor

from ldm_course.sampling import State, denoise
from ldm_course.schedulers import SCHEDULERS, NoiseSchedule, ddim_step, ddpm_step, dpmpp_2m_step, euler_step

PER_STEP, FULL_RUN = 1e-5, 5e-5
SHAPE = (2, 4, 5, 3)
RUNS = [("leading", n) for n in (7, 20, 50, 999)] + [("trailing", n) for n in (1, 2, 10, 50)]
BETAS = {
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012},
}
CASES = [(betas, prediction) for betas in BETAS for prediction in ("epsilon", "v_prediction")]


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


def our_states(schedule: NoiseSchedule, x_T: Tensor, timesteps: list[int], scheduler: str, seed=0) -> list[State]:
    """Through `denoise`, the one loop."""
    model = SimpleNamespace(
        unet=lambda x_t, t, context: network(x_t, t),
        schedule=schedule,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    generator = torch.Generator().manual_seed(seed)
    context = torch.zeros(len(x_T), 1, 1)
    return list(denoise(model, x_T, context, timesteps, scheduler=scheduler, generator=generator))


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


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("spacing, n", RUNS)
def test_ddim_run(spacing, n, betas, prediction, set_alpha_to_one):
    ours, theirs = both(DDIMScheduler, spacing, betas, prediction, set_alpha_to_one)
    theirs.set_timesteps(n)
    assert ours.timesteps(n) == theirs.timesteps.tolist()
    if n == 999 and set_alpha_to_one:  # the last step differs: test_ddim_ends_at_the_end
        theirs.timesteps = theirs.timesteps[:-1]
        result = our_states(ours, noise(*SHAPE), ours.timesteps(n), "ddim")[-2].x_t
    else:
        result = our_run(ours, noise(*SHAPE), ours.timesteps(n), "ddim")
    assert relative_error(result, their_run(theirs, noise(*SHAPE))) <= FULL_RUN


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize("spacing, n", RUNS)
def test_ddpm_run(spacing, n, betas, prediction):
    ours, theirs = both(DDPMScheduler, spacing, betas, prediction)
    theirs.set_timesteps(n)
    assert ours.timesteps(n) == theirs.timesteps.tolist()
    result, reference = our_run(ours, noise(*SHAPE), ours.timesteps(n), "ddpm"), their_run(theirs, noise(*SHAPE))
    assert relative_error(result, reference) <= FULL_RUN


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize("spacing, n", RUNS)
def test_euler_run(spacing, n, betas, prediction):
    ours, theirs = both(EulerDiscreteScheduler, spacing, betas, prediction)
    theirs.set_timesteps(n)
    assert ours.timesteps(n) == theirs.timesteps.tolist()
    result, reference = our_run(ours, noise(*SHAPE), ours.timesteps(n), "euler"), their_run(theirs, noise(*SHAPE))
    assert relative_error(result, reference) <= FULL_RUN


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize("spacing, n", [run for run in RUNS if run[1] != 999])
def test_dpmpp_run(spacing, n, betas, prediction):
    """On our timesteps; diffusers' own list is another one."""
    ours, theirs = both(DPMSolverMultistepScheduler, spacing, betas, prediction)
    theirs.set_timesteps(timesteps=ours.timesteps(n))
    result, reference = our_run(ours, noise(*SHAPE), ours.timesteps(n), "dpm++"), their_run(theirs, noise(*SHAPE))
    assert relative_error(result, reference) <= FULL_RUN


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_dpmpp_run_on_diffusers_timesteps(spacing):
    """diffusers spaces DPM-Solver++ as if there were one step more; our loop takes that list as any other."""
    ours, theirs = both(DPMSolverMultistepScheduler, spacing, "scaled_linear", "epsilon")
    theirs.set_timesteps(20)
    timesteps = theirs.timesteps.tolist()
    assert (timesteps == ours.timesteps(20)) == (spacing == "trailing")
    result, reference = our_run(ours, noise(*SHAPE), timesteps, "dpm++"), their_run(theirs, noise(*SHAPE))
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
    assert relative_error(our_run(ours, noise(*SHAPE), timesteps, "dpm++"), x.float()) <= FULL_RUN


# Single steps


@pytest.mark.parametrize("betas, prediction", CASES)
@pytest.mark.parametrize("spacing, n", [("leading", 50), ("leading", 999), ("trailing", 10)])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_single_steps(spacing, n, betas, prediction, set_alpha_to_one):
    """Every step alone, from the same x_t, so that errors cannot cancel or grow."""
    ours, ddim = both(DDIMScheduler, spacing, betas, prediction, set_alpha_to_one)
    _, ddpm = both(DDPMScheduler, spacing, betas, prediction)
    _, euler = both(EulerDiscreteScheduler, spacing, betas, prediction)
    for theirs in (ddim, ddpm, euler):
        theirs.set_timesteps(n)
    timesteps = ours.timesteps(n)
    for i, t in list(enumerate(timesteps))[:: max(1, n // 20)] + [(n - 1, timesteps[-1])]:
        last = i == n - 1
        x_t, model_output, fresh = noise(*SHAPE, seed=t), noise(*SHAPE, seed=t + 1), noise(*SHAPE, seed=t + 2)
        x0_hat, eps = ours.x0_and_eps(model_output, x_t, t)
        alpha_bar_t = ours.alpha_bar(t)
        alpha_bar_prev = ours.alpha_bar(max(t - 1000 // n, -1))  # the next listed, but for test_ddim_ends_at_the_end
        reference = ddim.step(model_output, t, x_t)
        assert relative_error(x0_hat, reference.pred_original_sample) <= PER_STEP
        assert relative_error(ddim_step(x_t, eps, alpha_bar_t, alpha_bar_prev), reference.prev_sample) <= PER_STEP

        alpha_bar_prev = 1.0 if last else alpha_bar_prev
        reference = ddpm.step(model_output, t, x_t, generator=torch.Generator().manual_seed(t + 2)).prev_sample
        assert relative_error(ddpm_step(x_t, eps, alpha_bar_t, alpha_bar_prev, fresh), reference) <= PER_STEP

        euler._step_index = i
        y = x_t * (euler.sigmas[i] ** 2 + 1) ** 0.5
        euler.is_scale_input_called = True
        reference = euler.step(model_output, euler.timesteps[i], y).prev_sample * alpha_bar_prev**0.5
        assert relative_error(euler_step(x_t, eps, alpha_bar_t, alpha_bar_prev), reference) <= PER_STEP


@pytest.mark.parametrize("betas, prediction", CASES)
def test_add_noise_and_schedule(betas, prediction):
    ours, theirs = both(DDIMScheduler, "leading", betas, prediction)
    assert ours.alpha_bars.dtype == torch.float64
    assert relative_error(ours.alpha_bars.float(), theirs.alphas_cumprod) <= 1e-5
    x0, eps, t = noise(3, 4, 5, 3), noise(3, 4, 5, 3, seed=1), torch.tensor([0, 500, 999])
    assert relative_error(ours.add_noise(x0, eps, t), theirs.add_noise(x0, eps, t)) <= PER_STEP
    for i in range(3):
        assert torch.equal(ours.add_noise(x0, eps, int(t[i]))[i], ours.add_noise(x0, eps, t)[i])
    assert ours.add_noise(x0.half(), eps.half(), 500).dtype == torch.float16


# The timesteps


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_are_diffusers(spacing):
    """For every number of steps, from high to low, each once, within the schedule.

    A deliberate difference: rounding in diffusers' "trailing" can add a timestep -1, as for 61 steps. We drop it.
    """
    ours, theirs = both(DDIMScheduler, spacing, "scaled_linear", "epsilon")
    dropped = 0
    for n in range(1, 1000):
        theirs.set_timesteps(n)
        reference = theirs.timesteps.tolist()
        if reference[-1] == -1:
            dropped += 1
            del reference[-1]
        timesteps = ours.timesteps(n)
        assert timesteps == reference and len(timesteps) == n
        assert all(a > b for a, b in zip(timesteps, timesteps[1:])) and 0 <= timesteps[-1] and timesteps[0] < 1000
        assert all(type(t) is int for t in timesteps)
    assert (dropped > 0) == (spacing == "trailing")


def test_timesteps_that_are_quoted():
    schedule = NoiseSchedule()
    assert schedule.timesteps(50)[:2] == [981, 961] and schedule.timesteps(50)[-1] == 1
    assert schedule.timesteps(1) == [1] and schedule.timesteps(2) == [501, 1]
    assert schedule.timesteps(50, "trailing")[:2] == [999, 979] and schedule.timesteps(50, "trailing")[-1] == 19
    assert schedule.timesteps(50, "linspace")[:3] == [999, 979, 958] and schedule.timesteps(50, "linspace")[-1] == 0
    assert NoiseSchedule(timestep_spacing="trailing").timesteps(10) == schedule.timesteps(10, "trailing")
    assert schedule.timesteps(1000, "trailing") == list(range(999, -1, -1))


# Deliberate differences from diffusers


def test_ddim_steps_to_the_next_listed_timestep():
    """diffusers goes to t - 1000 // n, which for 7 "trailing" steps is not on the list; we go to the next on it."""
    ours, theirs = both(DDIMScheduler, "trailing", "scaled_linear", "epsilon")
    theirs.set_timesteps(7)
    timesteps = ours.timesteps(7)
    x_t, eps, (t, t_prev) = noise(*SHAPE), noise(*SHAPE, seed=1), timesteps[:2]
    assert (t, t_prev, t - 1000 // 7) == (999, 856, 857)
    reference = theirs.step(eps, t, x_t).prev_sample
    assert relative_error(ddim_step(x_t, eps, ours.alpha_bar(t), ours.alpha_bar(857)), reference) <= PER_STEP
    assert relative_error(ddim_step(x_t, eps, ours.alpha_bar(t), ours.alpha_bar(t_prev)), reference) > 100 * PER_STEP


def test_ddim_ends_at_the_end():
    """After "leading" with a stride of 1, and so a last timestep of 1, diffusers ends at t = 0, not at alpha_bar 1,
    whatever set_alpha_to_one says; ours ends where the schedule says."""
    ours, theirs = both(DDIMScheduler, "leading", "scaled_linear", "epsilon", set_alpha_to_one=True)
    theirs.set_timesteps(999)
    x_t, eps = noise(*SHAPE), noise(*SHAPE, seed=1)
    reference = theirs.step(eps, 1, x_t)
    assert (
        relative_error(ddim_step(x_t, eps, ours.alpha_bar(1), ours.alpha_bar(0)), reference.prev_sample) <= PER_STEP
    )
    ends = ddim_step(x_t, eps, ours.alpha_bar(1), ours.alpha_bar(-1))
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


def test_leading_1000_is_refused():
    """diffusers raises IndexError at the first step; we say why."""
    _, theirs = both(DDIMScheduler, "leading", "scaled_linear", "epsilon")
    theirs.set_timesteps(1000)
    with pytest.raises(IndexError):
        theirs.step(noise(*SHAPE), theirs.timesteps[0], noise(*SHAPE))
    with one_sentence("1000 steps", "offset 1", "timestep_spacing"):
        NoiseSchedule().timesteps(1000)


# What the mathematics promises


@pytest.mark.parametrize("spacing, n", RUNS)
def test_euler_is_ddim_in_other_coordinates(spacing, n):
    schedule = NoiseSchedule(set_alpha_to_one=True)
    timesteps = schedule.timesteps(n, spacing)
    ddim, euler = (our_run(schedule, noise(*SHAPE), timesteps, name) for name in ("ddim", "euler"))
    assert relative_error(euler, ddim) <= 2e-5


def test_dpmpp_of_first_order_is_ddim():
    x_t, eps = noise(*SHAPE), noise(*SHAPE, seed=1)
    for alpha_bar_t, alpha_bar_prev in [(0.005, 0.01), (0.3, 0.5), (0.99, 0.999)]:
        ddim = ddim_step(x_t, eps, alpha_bar_t, alpha_bar_prev)
        assert relative_error(dpmpp_2m_step(x_t, eps, alpha_bar_t, alpha_bar_prev), ddim) <= 1e-5
        second = dpmpp_2m_step(x_t, eps, alpha_bar_t, alpha_bar_prev, noise(*SHAPE, seed=2), alpha_bar_t / 2)
        assert relative_error(second, ddim) > 1e-3


@pytest.mark.parametrize("step", [ddim_step, euler_step, dpmpp_2m_step])
def test_a_step_to_the_end_returns_x0_hat(step):
    x_t, eps = noise(*SHAPE), noise(*SHAPE, seed=1)
    x0_hat, _ = NoiseSchedule().x0_and_eps(eps, x_t, 500)
    extra = (noise(*SHAPE, seed=2), 0.01) if step is dpmpp_2m_step else ()
    assert relative_error(step(x_t, eps, NoiseSchedule().alpha_bar(500), 1.0, *extra), x0_hat) <= 1e-5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_x0_and_eps_undo_add_noise(prediction):
    schedule = NoiseSchedule(prediction_type=prediction)
    x0, eps = noise(*SHAPE).double(), noise(*SHAPE, seed=1).double()
    for t in (0, 500, 999):
        alpha_bar_t = schedule.alpha_bar(t)
        v = math.sqrt(alpha_bar_t) * eps - math.sqrt(1 - alpha_bar_t) * x0
        x_t = schedule.add_noise(x0, eps, t)
        guess, noise_ = schedule.x0_and_eps(eps if prediction == "epsilon" else v, x_t, t)
        assert relative_error(guess, x0) <= 1e-12 and relative_error(noise_, eps) <= 1e-12


MEAN, STD = 1.5, 0.4  # of data for which the best possible network is known in closed form


def best_eps(x: Tensor, alpha_bar_t: float) -> Tensor:
    """E[eps | x_t = x] for data ~ N(MEAN, STD^2)."""
    variance = alpha_bar_t * STD**2 + 1 - alpha_bar_t
    return math.sqrt(1 - alpha_bar_t) * (x - math.sqrt(alpha_bar_t) * MEAN) / variance


def walk(name: str, x: Tensor, alpha_bars: list[float]) -> Tensor:
    """Steps with the best network from level to level, in float64."""
    generator, before = torch.Generator().manual_seed(1), ()
    for a, b in zip(alpha_bars, alpha_bars[1:]):
        eps = best_eps(x, a)
        if name == "ddpm":
            x = ddpm_step(x, eps, a, b, torch.randn(x.shape, generator=generator, dtype=x.dtype))
        elif name == "dpm++":
            x0_hat = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
            x, before = dpmpp_2m_step(x, eps, a, b, *before), (x0_hat, a)
        else:
            x = {"ddim": ddim_step, "euler": euler_step}[name](x, eps, a, b)
    return x


@pytest.mark.parametrize("name", SCHEDULERS)
def test_samples_have_the_right_distribution(name):
    """Noised data in, N(1.5, 0.4^2) out: mean and spread of 20,000 samples."""
    schedule = NoiseSchedule()
    alpha_bars = [schedule.alpha_bar(t) for t in schedule.timesteps(500, "trailing")] + [1.0]
    x_T = schedule.add_noise(MEAN + STD * noise(20_000).double(), noise(20_000, seed=1).double(), 999)
    x = walk(name, x_T, alpha_bars)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x.std().item() == pytest.approx(STD, abs=0.01)


def test_order_of_convergence():
    """Twice the steps: half the error with DDIM, a quarter with DPM-Solver++; the exact path is known here."""

    def error(name: str, n: int) -> float:
        alpha_bars = torch.sigmoid(torch.linspace(-5, 3, n + 1, dtype=torch.float64)).tolist()  # even in log-SNR
        a, b = alpha_bars[0], alpha_bars[-1]
        x = noise(1000).double()
        spread = math.sqrt((b * STD**2 + 1 - b) / (a * STD**2 + 1 - a))
        exact = math.sqrt(b) * MEAN + spread * (x - math.sqrt(a) * MEAN)
        return relative_error(walk(name, x, alpha_bars), exact)

    assert error("ddim", 100) / error("ddim", 200) == pytest.approx(2, abs=0.2)
    assert error("dpm++", 100) / error("dpm++", 200) == pytest.approx(4, abs=0.8)
    assert error("dpm++", 100) < error("ddim", 100) / 10


def test_levels_at_the_end():
    """DDIM stops at alpha_bar_0 as SD was trained: a share of 0.029 of the noise stays. The others stop at 1."""
    assert NoiseSchedule().alpha_bar(-1) == NoiseSchedule().alpha_bar(0)
    assert math.sqrt(1 - NoiseSchedule().alpha_bar(-1)) == pytest.approx(0.029, abs=5e-4)
    assert NoiseSchedule(set_alpha_to_one=True).alpha_bar(-1) == 1.0
    assert math.sqrt(NoiseSchedule().alpha_bar(999)) == pytest.approx(0.068, abs=5e-4)
    for name in SCHEDULERS:
        results = [
            our_run(NoiseSchedule(set_alpha_to_one=flag), noise(*SHAPE), [500, 1], name) for flag in (True, False)
        ]
        assert torch.equal(*results) == (name != "ddim")


# No surprises


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_and_runs_are_pure(name):
    schedule, x_T = NoiseSchedule(), noise(*SHAPE)
    alpha_bars, timesteps = schedule.alpha_bars.clone(), schedule.timesteps(5)
    first = our_run(schedule, x_T, timesteps, name)
    assert torch.equal(first, our_run(schedule, x_T, timesteps, name))
    assert torch.equal(x_T, noise(*SHAPE)) and timesteps == schedule.timesteps(5)
    assert torch.equal(schedule.alpha_bars, alpha_bars)
    assert (name == "ddpm") != torch.equal(first, our_run(schedule, x_T, timesteps, name, seed=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_steps_keep_the_dtype(dtype):
    x_t, eps, third = (noise(*SHAPE, seed=seed).to(dtype) for seed in range(3))
    assert ddim_step(x_t, eps, 0.3, 0.5).dtype == dtype
    assert euler_step(x_t, eps, 0.3, 0.5).dtype == dtype
    assert ddpm_step(x_t, eps, 0.3, 0.5, third).dtype == dtype
    assert dpmpp_2m_step(x_t, eps, 0.3, 0.5, third, 0.2).dtype == dtype


def test_schedule_is_frozen_and_comparable():
    with pytest.raises(AttributeError):
        NoiseSchedule().beta_start = 1.0
    assert NoiseSchedule() == NoiseSchedule() != NoiseSchedule(steps_offset=0)


@pytest.mark.parametrize(
    "field, value",
    [
        ("num_train_timesteps", 0),
        ("beta_start", 0.0),
        ("beta_start", math.nan),
        ("beta_end", 1.0),
        ("beta_end", 0.0001),
        ("beta_schedule", "squaredcos_cap_v2"),
        ("prediction_type", "sample"),
        ("timestep_spacing", "karras"),
        ("steps_offset", -1),
        ("steps_offset", 1000),
    ],
)
def test_bad_schedules(field, value):
    with one_sentence(field, str(value)):
        NoiseSchedule(**{field: value})


@pytest.mark.parametrize("n", [0, -1, 1001, 20.0, "20", None])
def test_bad_numbers_of_steps(n):
    with one_sentence("num_inference_steps", repr(n), "1 to 1000"):
        NoiseSchedule().timesteps(n)


def test_bad_spacing_and_timesteps():
    for spacing in ("karras", ""):
        with one_sentence("timestep_spacing", "'leading', 'trailing', 'linspace'"):
            NoiseSchedule().timesteps(10, spacing)
    x = noise(2, 4, 3, 3)
    for t in (-1, 1000, torch.tensor([5, -1]), torch.tensor([5, 1000])):
        with one_sentence("no timestep", "0 to 999"):
            NoiseSchedule().add_noise(x, x, t)
    for t in (-2, 1000):
        with one_sentence("no timestep", str(t)):
            NoiseSchedule().alpha_bar(t)

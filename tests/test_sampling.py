"""The one loop: what it yields, what it asks the UNet, and that it surprises nobody."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import noise, one_sentence, relative_error

import ldm_course
from ldm_course import sampling, schedulers
from ldm_course.sampling import denoise, draw_noise, guided_eps

TIMESTEPS = [981, 481, 1]


class Spy(torch.nn.Module):
    """A UNet that notes what it is asked."""

    def __init__(self, unet: torch.nn.Module):
        super().__init__()
        self.unet, self.config, self.calls = unet, unet.config, []

    @property
    def conv_in(self):  # our model reads device and dtype there
        return self.unet.conv_in

    def forward(self, x_t, t, context):
        self.calls.append((x_t, t, context))
        return self.unet(x_t, t, context)


@pytest.fixture
def asked(model):
    """(x_T, context, negative_context) for two pictures."""
    return noise(2, 4, 8, 6), noise(2, 77, 24, seed=1), noise(2, 77, 24, seed=2)


@pytest.mark.parametrize("scheduler", schedulers.SCHEDULERS)
def test_states(model, asked, scheduler):
    x_T, context, negative_context = asked
    states = list(denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=3.0,
                          scheduler=scheduler, generator=torch.Generator().manual_seed(0)))  # fmt: skip
    assert [state.t for state in states] == [*TIMESTEPS, -1]
    assert torch.equal(states[0].x_t, x_T)
    for state in states:
        for tensor in (state.x_t, state.eps, state.x0_hat):
            assert tensor.shape == x_T.shape and tensor.dtype == torch.float32 and not tensor.requires_grad
    for state in states[:-1]:  # x_t is variance-preserving: x_t = sqrt(alpha_bar) x0_hat + sqrt(1 - alpha_bar) eps
        assert relative_error(model.schedule.add_noise(state.x0_hat, state.eps, state.t), state.x_t) <= 1e-5
    last = states[-1]
    assert last.x0_hat is last.x_t and torch.equal(last.eps, states[-2].eps)
    if scheduler != "ddim":
        assert relative_error(last.x_t, states[-2].x0_hat) <= 1e-5


def test_guidance_is_the_formula(model, asked):
    """eps is uncond + s (cond - uncond), for s below 1 and below 0 too, where diffusers switches guidance off."""
    x_T, context, negative_context = asked
    cond, uncond = model.unet(x_T, 981, context), model.unet(x_T, 981, negative_context)
    for scale in (-1.0, 0.0, 0.5, 2.0, 7.5):
        first = next(denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=scale))
        assert relative_error(first.eps, uncond + scale * (cond - uncond)) <= 1e-5
    assert relative_error(next(denoise(model, x_T, context, TIMESTEPS)).eps, cond) <= 1e-6
    assert torch.equal(guided_eps(uncond, cond, 0.0), uncond)


def test_v_prediction_is_guided_before_it_is_converted(model, asked):
    x_T, context, negative_context = asked
    model = replace(model, schedule=replace(model.schedule, prediction_type="v_prediction"))
    cond, uncond = model.unet(x_T, 981, context), model.unet(x_T, 981, negative_context)
    first = next(denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=3.0))
    v, alpha_bar_t = uncond + 3.0 * (cond - uncond), model.schedule.alpha_bar(981)
    assert relative_error(first.x0_hat, math.sqrt(alpha_bar_t) * x_T - math.sqrt(1 - alpha_bar_t) * v) <= 1e-5


def test_what_the_unet_is_asked(model, asked):
    """One call per step: both halves in one batch, the negative one first; at scale 1 no second half at all."""
    x_T, context, negative_context = asked
    spy = Spy(model.unet)
    spied = replace(model, unet=spy)
    list(denoise(spied, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=2.0))
    assert [t for _, t, _ in spy.calls] == TIMESTEPS
    assert torch.equal(spy.calls[0][0], torch.cat([x_T, x_T]))
    assert torch.equal(spy.calls[0][2], torch.cat([negative_context, context]))
    spy.calls.clear()
    list(denoise(spied, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=1.0))
    assert [len(x_t) for x_t, _, _ in spy.calls] == [2, 2, 2]


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_what_is_shared_changes_nothing(model, asked, guidance_scale):
    """The package's UNet gets the latent once and the text ready-made; one of your own gets plain tensors."""
    x_T, context, negative_context = asked
    options = {"negative_context": negative_context, "guidance_scale": guidance_scale}
    shared = list(denoise(model, x_T, context, TIMESTEPS, **options))
    plain = list(denoise(replace(model, unet=Spy(model.unet)), x_T, context, TIMESTEPS, **options))
    for a, b in zip(shared, plain):
        assert relative_error(a.eps, b.eps) <= 1e-5


def test_a_learners_step_and_guidance_are_used(model, asked, monkeypatch):
    """They are looked up when the loop runs, and called with exactly the documented arguments."""
    x_T, context, negative_context = asked
    options = {"negative_context": negative_context, "guidance_scale": 2.0}
    before = list(denoise(model, x_T, context, TIMESTEPS, **options))[-1].x_t
    seen, original = [], schedulers.ddim_step

    def my_ddim_step(x_t, eps, alpha_bar_t, alpha_bar_prev):
        seen.append((alpha_bar_t, alpha_bar_prev))
        return original(x_t, eps, alpha_bar_t, alpha_bar_prev)

    monkeypatch.setattr(schedulers, "ddim_step", my_ddim_step)
    assert torch.equal(list(denoise(model, x_T, context, TIMESTEPS, **options))[-1].x_t, before)
    levels = [model.schedule.alpha_bar(t) for t in [*TIMESTEPS, -1]]
    assert seen == list(zip(levels, levels[1:])) and all(type(level) is float for pair in seen for level in pair)

    monkeypatch.setattr(schedulers, "ddim_step", lambda x_t, eps, alpha_bar_t, alpha_bar_prev: x_t)
    assert torch.equal(list(denoise(model, x_T, context, TIMESTEPS, **options))[-1].x_t, x_T)

    monkeypatch.setattr(sampling, "guided_eps", lambda eps_uncond, eps_cond, guidance_scale: 0 * eps_cond)
    assert not next(denoise(model, x_T, context, TIMESTEPS, **options)).eps.any()


@pytest.mark.parametrize("scheduler", schedulers.SCHEDULERS)
def test_after_step(model, asked, scheduler):
    """It hears of the level that x has reached, and the loop goes on with its answer."""
    x_T, context, _ = asked
    heard = []

    def after_step(x, t_prev):
        heard.append(t_prev)
        return torch.full_like(x, t_prev)

    states = list(denoise(model, x_T, context, TIMESTEPS, scheduler=scheduler, after_step=after_step))
    assert heard == [481, 1, -1]
    assert [state.x_t.unique().tolist() for state in states[1:]] == [[481], [1], [-1]]


def test_no_steps(model, asked):
    x_T, context, _ = asked
    (only,) = denoise(model, x_T, context, [])
    assert only.t == -1 and torch.equal(only.x_t, x_T) and torch.equal(only.x0_hat, x_T) and not only.eps.any()


@pytest.mark.parametrize("scheduler", schedulers.SCHEDULERS)
def test_same_arguments_same_states(model, asked, scheduler):
    """Nothing given is changed, and nothing is remembered from one call to the next."""
    x_T, context, negative_context = asked
    timesteps, before = list(TIMESTEPS), [tensor.clone() for tensor in asked]
    modes = [module.training for module in model.unet.modules()]

    def run():
        generator = torch.Generator().manual_seed(3)
        return list(denoise(model, x_T, context, timesteps, negative_context=negative_context, guidance_scale=2.0,
                            scheduler=scheduler, generator=generator))  # fmt: skip

    first, second = run(), run()
    assert all(torch.equal(a.x_t, b.x_t) and torch.equal(a.eps, b.eps) for a, b in zip(first, second))
    assert timesteps == TIMESTEPS and all(torch.equal(a, b) for a, b in zip(before, asked))
    assert modes == [module.training for module in model.unet.modules()]


@pytest.mark.parametrize("scheduler", schedulers.SCHEDULERS)
def test_a_batch_equals_its_singles(model, asked, scheduler):
    x_T, context, negative_context = asked

    def run(part, generators):
        *_, last = denoise(model, x_T[part], context[part], TIMESTEPS, negative_context=negative_context[part],
                           guidance_scale=2.0, scheduler=scheduler, generator=generators)  # fmt: skip
        return last.x_t

    seeds = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    batch = run(slice(None), seeds)
    for i in range(2):
        single = run(slice(i, i + 1), torch.Generator().manual_seed(5 + i))
        assert relative_error(batch[i : i + 1], single) <= 1e-5


def test_gradients_are_off_only_inside(model, asked):
    x_T, context, _ = asked
    unet = model.unet
    try:
        unet.requires_grad_(True)
        for state in denoise(model, x_T, context, TIMESTEPS):
            assert torch.is_grad_enabled() and not state.x_t.requires_grad and not state.eps.requires_grad
    finally:
        unet.requires_grad_(False)


def test_latents_stay_float32(model, asked):
    """The UNet is called in its own precision, the latent is kept in float32."""
    x_T, context, _ = asked
    dtypes = []

    def unet(x_t, t, context):
        dtypes.extend([x_t.dtype, context.dtype])
        return x_t

    half = SimpleNamespace(unet=unet, schedule=model.schedule, device=model.device, dtype=torch.bfloat16)
    states = list(denoise(half, x_T, context, TIMESTEPS))
    assert set(dtypes) == {torch.bfloat16}
    assert {state.x_t.dtype for state in states} == {torch.float32}


def test_draw_noise():
    shape, seeded = (3, 4, 5, 6), lambda seed: torch.Generator().manual_seed(seed)  # noqa: E731
    assert torch.equal(draw_noise(shape, seeded(1)), torch.randn(shape, generator=seeded(1)))
    each = draw_noise(shape, [seeded(1), seeded(2), seeded(3)])
    assert each.shape == shape and each.dtype == torch.float32 and each.device.type == "cpu"
    for i in range(3):
        assert torch.equal(each[i : i + 1], draw_noise((1, 4, 5, 6), seeded(i + 1)))
    torch.manual_seed(7)
    first = draw_noise(shape)
    torch.manual_seed(7)
    assert torch.equal(first, draw_noise(shape))


def test_bad_arguments_are_refused_at_the_call(model, asked):
    """Before the first State is asked for."""
    x_T, context, negative_context = asked
    with one_sentence("scheduler", "'pndm'", "'dpm++'"):
        denoise(model, x_T, context, TIMESTEPS, scheduler="pndm")
    for scale in (math.nan, math.inf, "7", None):
        with one_sentence("guidance_scale", repr(scale)):
            denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=scale)
    with one_sentence("negative_context", "guidance_scale=1"):
        denoise(model, x_T, context, TIMESTEPS, guidance_scale=2.0)
    with one_sentence("negative_context", "(2, 77, 24)", "(1, 77, 24)"):
        denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context[:1], guidance_scale=2.0)
    for timesteps in ([1, 481], [481, 481]):
        with one_sentence("timesteps", "high to low"):
            denoise(model, x_T, context, timesteps)
    for t in (1000, -1):
        with one_sentence("no timestep", str(t)):
            denoise(model, x_T, context, [t])
    with one_sentence("x_T", "(2, 4, 8, 6)", "(1, 77, 24)"):
        denoise(model, x_T, context[:1], TIMESTEPS)
    with one_sentence("x_T", "(4, 8, 6)"):
        denoise(model, x_T[0], context, TIMESTEPS)
    generator = torch.Generator()
    with one_sentence("3 generators", "2 pictures"):
        denoise(model, x_T, context, TIMESTEPS, generator=[generator] * 3)
    for wrong in (0, [generator, 1]):
        with one_sentence("generator must be"):
            denoise(model, x_T, context, TIMESTEPS, generator=wrong)


def test_one_step_reads_in_five_short_files():
    """Everything that one denoising step does is in these files, and they are shorter than 700 lines together."""
    folder = Path(ldm_course.__file__).parent
    files = ("sampling", "schedulers", "unet", "blocks", "groupnorm")
    assert sum(len((folder / f"{name}.py").read_text().splitlines()) for name in files) < 700

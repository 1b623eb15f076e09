"""The one loop: what it yields, what it asks the UNet, and that it surprises nobody."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from helpers import noise, relative_error

from ldm_course import samplers
from ldm_course.pipelines import SAMPLERS
from ldm_course.sampling import denoise, draw_noise, guide

TIMESTEPS = [981, 481, 1]
each_sampler = pytest.mark.parametrize("step", SAMPLERS.values(), ids=SAMPLERS)


@pytest.fixture
def asked(model):
    """(x_T, context, negative_context) for two images."""
    return noise(2, 4, 8, 6), noise(2, 77, 24, seed=1), noise(2, 77, 24, seed=2)


@each_sampler
def test_states(model, asked, step):
    x_T, context, negative_context = asked
    states = list(denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=3.0,
                          step=step, generator=torch.Generator().manual_seed(0)))  # fmt: skip
    assert [state.t for state in states] == [*TIMESTEPS, -1]
    assert torch.equal(states[0].x_t, x_T)
    for state in states:
        for tensor in (state.x_t, state.eps, state.x0_hat):
            assert tensor.shape == x_T.shape and tensor.dtype == torch.float32 and not tensor.requires_grad
    for state in states[:-1]:  # x_t is variance-preserving: x_t = sqrt(alpha_bar) x0_hat + sqrt(1 - alpha_bar) eps
        assert relative_error(model.schedule.add_noise(state.x0_hat, state.eps, state.t), state.x_t) <= 1e-5
    last = states[-1]
    assert last.x0_hat is last.x_t and torch.equal(last.eps, states[-2].eps)
    if step is not samplers.ddim:
        assert relative_error(last.x_t, states[-2].x0_hat) <= 1e-5


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 7.5])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_guidance_is_the_formula(model, asked, prediction, scale):
    """uncond + s (cond - uncond), for s below 1 and below 0 too, where diffusers switches guidance off; v-predictions
    are guided before they are converted."""
    x_T, context, negative_context = asked
    model = replace(model, schedule=replace(model.schedule, prediction_type=prediction))
    cond, uncond = model.unet(x_T, 981, context), model.unet(x_T, 981, negative_context)
    first = next(denoise(model, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=scale))
    guided, alpha_bar_t = uncond + scale * (cond - uncond), model.schedule.alpha_bar(981)
    if prediction == "epsilon":
        assert relative_error(first.eps, guided) <= 1e-5
    else:
        x0_hat = math.sqrt(alpha_bar_t) * x_T - math.sqrt(1 - alpha_bar_t) * guided
        assert relative_error(first.x0_hat, x0_hat) <= 1e-5


def test_what_the_unet_is_asked(model, asked):
    """One call per step: both halves in one batch, the negative one first; at scale 1 no second half at all."""
    x_T, context, negative_context = asked
    calls = []
    spied = replace(model, unet=lambda *inputs: calls.append(inputs) or model.unet(*inputs))
    list(denoise(spied, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=2.0))
    assert [t.tolist() for _, t, _ in calls] == [[t] for t in TIMESTEPS]
    assert torch.equal(calls[0][0], torch.cat([x_T, x_T]))
    assert torch.equal(calls[0][2], torch.cat([negative_context, context]))
    calls.clear()
    list(denoise(spied, x_T, context, TIMESTEPS, negative_context=negative_context, guidance_scale=1.0))
    assert [len(x_t) for x_t, _, _ in calls] == [2, 2, 2]


# A learner's own parts


def test_a_step_of_your_own(model, asked):
    """DDIM written out gives exactly samplers.ddim's latents; it is called with exactly the documented arguments."""
    x_T, context, negative_context = asked
    seen = []

    def my_ddim(now, alpha_bar, before, noise):
        seen.append((now.t, now.alpha_bar, alpha_bar, before and before.t))
        assert noise().shape == now.x_t.shape and noise().dtype == torch.float32
        return math.sqrt(alpha_bar) * now.x0_hat + math.sqrt(1 - alpha_bar) * now.eps

    options = {"negative_context": negative_context, "guidance_scale": 2.0}
    ours = list(denoise(model, x_T, context, TIMESTEPS, step=samplers.ddim, **options))
    mine = list(denoise(model, x_T, context, TIMESTEPS, step=my_ddim, **options))
    assert all(torch.equal(a.x_t, b.x_t) and a.alpha_bar == b.alpha_bar for a, b in zip(ours, mine, strict=True))
    levels = [model.schedule.alpha_bar(t) for t in [*TIMESTEPS, -1]]
    assert seen == list(zip(TIMESTEPS, levels, levels[1:], [None, *TIMESTEPS]))
    assert all(type(level) is float for call in seen for level in call[1:3])

    still = list(denoise(model, x_T, context, TIMESTEPS, step=lambda now, alpha_bar, before, noise: now.x_t))
    assert torch.equal(still[-1].x_t, x_T)


class OwnUNet(torch.nn.Module):
    """A weight and no config."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([0.5]))

    def forward(self, x_t, t, context):
        return self.scale * x_t + context.mean(dim=(1, 2))[:, None, None, None] + t[0] / 1000


@pytest.mark.parametrize(
    "unet", [lambda x_t, t, context: 0.5 * x_t + context.mean(), OwnUNet()], ids=["lambda", "module"]
)
def test_a_unet_of_your_own(model, asked, unet):
    """Any callable. Gradients are off, but only inside."""
    x_T, context, negative_context = asked
    options = {"negative_context": negative_context, "guidance_scale": 2.0}
    states = []
    for state in denoise(replace(model, unet=unet), x_T, context, TIMESTEPS, **options):
        assert torch.is_grad_enabled() and not state.x_t.requires_grad and not state.eps.requires_grad
        states.append(state)
    assert [state.t for state in states] == [*TIMESTEPS, -1] and states[-1].x_t.isfinite().all()
    x, t = torch.cat([x_T, x_T]), torch.tensor([981])
    uncond, cond = unet(x, t, torch.cat([negative_context, context])).chunk(2)
    assert torch.equal(states[0].eps, guide(uncond, cond, 2.0))


@each_sampler
def test_after_step(model, asked, step):
    """It hears of the level that x has reached, and the loop goes on with its answer."""
    x_T, context, _ = asked
    heard = []

    def after_step(x, t_prev):
        heard.append(t_prev)
        return torch.full_like(x, t_prev)

    states = list(denoise(model, x_T, context, TIMESTEPS, step=step, after_step=after_step))
    assert heard == [481, 1, -1]
    assert [state.x_t.unique().tolist() for state in states[1:]] == [[481], [1], [-1]]


def test_no_steps(model, asked):
    x_T, context, _ = asked
    (only,) = denoise(model, x_T, context, [])
    assert only.t == -1 and torch.equal(only.x_t, x_T) and torch.equal(only.x0_hat, x_T) and not only.eps.any()


@each_sampler
def test_same_arguments_same_states(model, asked, step):
    """Nothing given is changed, and nothing is remembered from one call to the next."""
    x_T, context, negative_context = asked
    timesteps, before = list(TIMESTEPS), [tensor.clone() for tensor in asked]

    def run(seed):
        return list(denoise(model, x_T, context, timesteps, negative_context=negative_context, guidance_scale=2.0,
                            step=step, generator=torch.Generator().manual_seed(seed)))  # fmt: skip

    first, second, other = run(3), run(3), run(4)
    assert all(torch.equal(a.x_t, b.x_t) and torch.equal(a.eps, b.eps) for a, b in zip(first, second))
    assert (step is samplers.ddpm) != torch.equal(first[-1].x_t, other[-1].x_t), "only DDPM draws noise"
    assert timesteps == TIMESTEPS and all(torch.equal(a, b) for a, b in zip(before, asked))


def test_latents_stay_float32(model, asked):
    """The UNet is called in its own precision, the latent is kept in float32."""
    x_T, context, _ = asked
    unet, dtypes = OwnUNet().bfloat16(), set()
    unet.register_forward_pre_hook(lambda _, inputs: dtypes.update({inputs[0].dtype, inputs[2].dtype}))
    states = list(denoise(replace(model, unet=unet), x_T, context, TIMESTEPS))
    assert dtypes == {torch.bfloat16}
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

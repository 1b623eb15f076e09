"""The training objective equals its formula, and caption dropout drops what it says."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import default_dtype, noise, relative_error

from ldm_course.loss import diffusion_loss, drop_captions
from ldm_course.schedule import NoiseSchedule

B, GAMMA = 6, 5.0


def unet(x_t, t, context):
    """Stands for the UNet: bounded, and it looks at x_t, at t and at the text."""
    return torch.sin(x_t + 0.01 * t.float()[:, None, None, None]) + context.mean(dim=(1, 2))[:, None, None, None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    """(x0, context)."""
    return noise(B, 4, 5, 3), noise(B, 77, 24, seed=1)


@pytest.mark.parametrize("min_snr_gamma", [None, GAMMA])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_formula_by_hand(batch, prediction, min_snr_gamma):
    """Image by image in plain numbers: Ho et al. 2020, eq. 14, and Hang et al. 2023, eq. 9."""
    x0, context = batch
    schedule = NoiseSchedule(prediction_type=prediction)
    generator = seeded()
    timesteps = torch.randint(1000, (B,), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    expected = 0.0
    for i, t in enumerate(timesteps.tolist()):
        alpha_bar = schedule.alpha_bar(t)
        signal, sigma, snr = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar), alpha_bar / (1 - alpha_bar)
        x_t = signal * x0[i] + sigma * eps[i]
        predicted = unet(x_t[None], torch.tensor([t]), context[i : i + 1])[0]
        if prediction == "epsilon":
            target, weight = eps[i], min(snr, GAMMA) / snr
        else:
            target, weight = signal * eps[i] - sigma * x0[i], min(snr, GAMMA) / (snr + 1)
        error = ((predicted - target) ** 2).mean().item()
        expected += (1.0 if min_snr_gamma is None else weight) * error / B
    loss = diffusion_loss(unet, schedule, x0, context, min_snr_gamma=min_snr_gamma, generator=seeded())
    assert loss.shape == () and loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_perfect_network_has_no_loss(batch, prediction):
    x0, context = batch
    schedule = NoiseSchedule(prediction_type=prediction)

    def perfect(x_t, t, context):
        signal, sigma = (level.sqrt().float()[:, None, None, None] for level in levels(schedule, t))
        eps = (x_t - signal * x0) / sigma
        return eps if prediction == "epsilon" else signal * eps - sigma * x0

    def levels(schedule, t):
        return schedule.alpha_bars[t], 1 - schedule.alpha_bars[t]

    assert diffusion_loss(perfect, schedule, x0, context, generator=seeded()).item() < 1e-6


def test_min_snr_weighs_little_noise_less(batch):
    """Below SNR 5 a timestep counts in full, above it less and less; with a huge gamma all count in full."""
    x0, context = batch
    plain = diffusion_loss(unet, NoiseSchedule(), x0, context, generator=seeded())
    weighted = diffusion_loss(unet, NoiseSchedule(), x0, context, min_snr_gamma=GAMMA, generator=seeded())
    unweighted = diffusion_loss(unet, NoiseSchedule(), x0, context, min_snr_gamma=1e9, generator=seeded())
    assert weighted < plain and torch.equal(unweighted, plain)


def test_gradients_flow_to_the_weights(batch):
    x0, context = batch
    layer = torch.nn.Conv2d(4, 4, 1)
    loss = diffusion_loss(lambda x_t, t, context: layer(x_t), NoiseSchedule(), x0, context, generator=seeded())
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in layer.parameters())


def test_timesteps_and_noise_are_drawn_anew_for_each_image(batch):
    x0, context = batch
    seen = []
    diffusion_loss(lambda x_t, t, c: seen.append((x_t, t)) or x_t, NoiseSchedule(), x0, context, generator=seeded())
    ((x_t, t),) = seen
    assert t.shape == (B,) and t.dtype == torch.int64 and len(set(t.tolist())) == B
    assert x_t.shape == x0.shape and len({row.sum().item() for row in x_t - x0}) == B
    drawn = torch.cat([torch.randint(1000, (B,), generator=seeded(seed)) for seed in range(2000)])
    assert drawn.min() == 0 and drawn.max() == 999


def test_deterministic_by_generator(batch):
    x0, context = batch

    def loss(seed):
        return diffusion_loss(unet, NoiseSchedule(), x0, context, generator=seeded(seed)).item()

    assert loss(1) == loss(1) != loss(2)
    state = torch.get_rng_state()
    loss(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    first = diffusion_loss(unet, NoiseSchedule(), x0, context)
    torch.manual_seed(3)
    assert torch.equal(first, diffusion_loss(unet, NoiseSchedule(), x0, context))


@pytest.mark.parametrize("min_snr_gamma", [None, GAMMA])
def test_it_does_not_depend_on_the_default_dtype(batch, min_snr_gamma):
    x0, context = batch
    options = {"min_snr_gamma": min_snr_gamma}
    before = diffusion_loss(unet, NoiseSchedule(), x0, context, generator=seeded(), **options)
    with default_dtype(torch.float64):
        after = diffusion_loss(unet, NoiseSchedule(), x0, context, generator=seeded(), **options)
        dropped = drop_captions(context, context[:1], 0.5, seeded())
    assert after.dtype == torch.float32 and torch.equal(after, before)
    assert torch.equal(dropped, drop_captions(context, context[:1], 0.5, seeded()))


def test_it_does_not_depend_on_the_default_device(batch):
    x0, context = batch
    before = diffusion_loss(unet, NoiseSchedule(), x0, context, min_snr_gamma=GAMMA, generator=seeded())
    dropped = drop_captions(context, context[:1], 0.5, seeded())
    generator = seeded()
    with torch.device("meta"):
        after = diffusion_loss(unet, NoiseSchedule(), x0, context, min_snr_gamma=GAMMA, generator=generator)
        assert torch.equal(drop_captions(context, context[:1], 0.5, torch.Generator("cpu").manual_seed(0)), dropped)
    assert torch.equal(after, before)


def test_half_precision_predictions_are_compared_in_float32(batch):
    x0, context = batch
    full = diffusion_loss(unet, NoiseSchedule(), x0, context, generator=seeded())
    half = diffusion_loss(lambda *given: unet(*given).bfloat16(), NoiseSchedule(), x0, context, generator=seeded())
    assert half.dtype == torch.float32 and relative_error(half, full) < 0.01


# Caption dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_drop_captions_drops_at_its_rate(p):
    """Of 20,000 captions; each is whole or the empty one."""
    context, empty = 1 + torch.rand(20_000, 3, 2, generator=seeded()), -torch.ones(1, 3, 2)
    result = drop_captions(context, empty, p, seeded(1))
    dropped = (result == empty).flatten(1).all(dim=1)
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.01)
    assert torch.equal(result[~dropped], context[~dropped])


def test_drop_captions_is_deterministic_and_changes_nothing(batch):
    _, context = batch
    before, empty = context.clone(), noise(77, 24, seed=2)
    first = drop_captions(context, empty, 0.5, seeded())
    assert torch.equal(context, before) and 0 < (first != context).flatten(1).any(dim=1).sum() < B
    assert torch.equal(first, drop_captions(context, empty, 0.5, seeded()))
    assert torch.equal(first, drop_captions(context, empty[None], 0.5, seeded()))
    assert first.dtype == context.dtype and first.shape == context.shape

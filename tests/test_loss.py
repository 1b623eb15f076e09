"""The training objective equals its formula, and caption dropout drops what it says."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import default_dtype, noise, relative_error

from ldm_course.loss import diffusion_loss, drop_captions
from ldm_course.schedule import PREDICTIONS, NoiseSchedule

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
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_formula_by_hand(batch, prediction, min_snr_gamma):
    """Image by image in plain numbers: Ho et al. 2020, eq. 14, Hang et al. 2023, eq. 9, Lipman et al. 2023, eq. 9."""
    x0, context = batch
    schedule = NoiseSchedule(prediction_type=prediction)
    generator = seeded()
    if prediction == "flow_prediction":
        s = 0.936 * torch.rand(B, dtype=torch.float64, generator=generator)
        timesteps = (schedule.flow_times - s[:, None]).abs().argmin(dim=1)
    else:
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
        elif prediction == "flow_prediction":
            target, weight = eps[i] - x0[i], min(snr, GAMMA) / (math.sqrt(snr) + 1) ** 2
        else:
            target, weight = signal * eps[i] - sigma * x0[i], min(snr, GAMMA) / (snr + 1)
        error = ((predicted - target) ** 2).mean().item()
        expected += (1.0 if min_snr_gamma is None else weight) * error / B
    loss = diffusion_loss(unet, schedule, x0, context, min_snr_gamma=min_snr_gamma, generator=seeded())
    assert loss.shape == () and loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weighs_the_error_of_x0_alike(prediction):
    """The weighted loss is min(SNR, gamma) |x0_hat - x0|^2, whatever the network predicts."""
    schedule, x0 = NoiseSchedule(prediction_type=prediction), noise(1, 4, 5, 3).double()
    seen = []

    def network(x_t, t, context):
        seen[:] = [(x_t, int(t))]
        return torch.sin(x_t)

    for seed in range(8):
        loss = diffusion_loss(network, schedule, x0, x0, min_snr_gamma=GAMMA, generator=seeded(seed))
        x_t, t = seen[0]
        x0_hat, _ = schedule.x0_and_eps(torch.sin(x_t), x_t, t)
        snr = schedule.alpha_bar(t) / (1 - schedule.alpha_bar(t))
        assert loss.item() == pytest.approx(min(snr, GAMMA) * (x0_hat - x0).square().mean().item(), rel=1e-3)


def test_the_timesteps_of_a_flow_are_even_in_its_time():
    """A tenth of 20,000 in each tenth of the straight path, as far as the schedule goes."""
    drawn, schedule = [], NoiseSchedule(prediction_type="flow_prediction")

    def network(x_t, t, context):
        drawn.append(t)
        return x_t

    diffusion_loss(network, schedule, torch.zeros(20_000, 1, 1, 1), torch.zeros(0), generator=seeded())
    share = torch.histc(schedule.flow_times[drawn[0]], 10, 0, schedule.flow_times[-1].item()) / 20_000
    assert (share - 0.1).abs().max() < 0.012


def test_only_gradients_and_the_generator_leave_a_trace(batch):
    """The same generator gives the same loss, no global random number is drawn, and gradients reach the weights."""
    x0, context = batch
    layer = torch.nn.Conv2d(4, 4, 1)

    def loss(generator):
        return diffusion_loss(lambda x_t, t, context: layer(x_t), NoiseSchedule(), x0, context, generator=generator)

    state = torch.get_rng_state()
    assert loss(seeded(1)).item() == loss(seeded(1)).item() != loss(seeded(2)).item()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(loss(None), loss(seeded(1))), "without a generator torch's global one is used"
    loss(seeded()).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in layer.parameters())


@pytest.mark.parametrize("min_snr_gamma", [None, GAMMA])
def test_it_does_not_depend_on_torchs_defaults(batch, min_snr_gamma):
    """The device "meta" stands for "cuda", a device where the batch is not."""
    x0, context = batch

    def results(generators):
        options = {"min_snr_gamma": min_snr_gamma, "generator": next(generators)}
        loss = diffusion_loss(unet, NoiseSchedule(), x0, context, **options)
        return loss, drop_captions(context, context[:1], 0.5, next(generators))

    generators = iter([seeded() for _ in range(6)])
    before = results(generators)
    with default_dtype(torch.float64):
        in_float64 = results(generators)
    with torch.device("meta"):
        elsewhere = results(generators)
    for after in (in_float64, elsewhere):
        assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(before, after))


def test_half_precision_predictions_are_compared_in_float32(batch):
    x0, context = batch
    full = diffusion_loss(unet, NoiseSchedule(), x0, context, generator=seeded())
    half = diffusion_loss(lambda *given: unet(*given).bfloat16(), NoiseSchedule(), x0, context, generator=seeded())
    assert half.dtype == torch.float32 and relative_error(half, full) < 0.01


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_drop_captions_drops_at_its_rate(p):
    """Of 20,000 captions; each is whole or the empty one, and the same generator drops the same."""
    context, empty = 1 + torch.rand(20_000, 3, 2, generator=seeded()), -torch.ones(1, 3, 2)
    before = context.clone()
    result = drop_captions(context, empty, p, seeded(1))
    dropped = (result == empty).flatten(1).all(dim=1)
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.01)
    assert torch.equal(result[~dropped], context[~dropped]) and torch.equal(context, before)
    assert torch.equal(result, drop_captions(context, empty[0], p, seeded(1)))

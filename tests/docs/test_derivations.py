"""The numbered formulas of docs/derivations.md, with numbers, in float64."""

from __future__ import annotations

import math

import pytest
import torch

import ldm_course as ldm
from ldm_course.samplers import State, ddim
from ldm_course.sampling import guide

F64 = torch.float64
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64) ** 2
BARS = torch.cumprod(1 - BETAS, dim=0)
POINTS = torch.tensor([-1.5, -0.3, 0.4, 2.0], dtype=F64)  # the data: four points, equally likely
T = (1, 50, 400, 999)


def means(x, signal, noise):
    """E[x_0 | x] and E[eps | x] for x = signal x_0 + noise eps."""
    weights = torch.softmax(-((x - signal * POINTS) ** 2) / (2 * noise**2), dim=0)
    x0 = (weights * POINTS).sum()
    return x0, (x - signal * x0) / noise


def log_density(x, signal, noise):
    return torch.logsumexp(-((x - signal * POINTS) ** 2) / (2 * noise**2), dim=0) - math.log(noise)


def of(t):
    return BETAS[t].item(), BARS[t].item(), BARS[t - 1].item()


def test_1_the_noise_of_many_steps():
    variance, signal = 0.0, 1.0
    for beta in BETAS[:400].tolist():
        variance, signal = (1 - beta) * variance + beta, signal * (1 - beta) ** 0.5
    assert variance == pytest.approx(1 - BARS[399].item()) and signal == pytest.approx(BARS[399].item() ** 0.5)


@pytest.mark.parametrize("t", T)
def test_2_and_3_the_posterior(t):
    beta, bar, before = of(t)
    alpha, x0, eps = 1 - beta, 0.7, -1.3
    x_t = bar**0.5 * x0 + (1 - bar) ** 0.5 * eps
    precision = 1 / (1 - before) + alpha / beta
    mean = (before**0.5 * x0 / (1 - before) + alpha**0.5 * x_t / beta) / precision
    assert 1 / precision == pytest.approx((1 - before) / (1 - bar) * beta)
    assert mean == pytest.approx((alpha**0.5 * (1 - before) * x_t + before**0.5 * beta * x0) / (1 - bar))
    assert mean == pytest.approx((x_t - beta / (1 - bar) ** 0.5 * eps) / alpha**0.5)


@pytest.mark.parametrize("t", T)
def test_4_and_5_the_weight_of_the_loss(t):
    beta, bar, before = of(t)
    sigma2, error = (1 - before) / (1 - bar) * beta, 0.37  # error: eps - eps_hat
    apart = beta / ((1 - beta) * (1 - bar)) ** 0.5 * error  # of the means, by (3)
    loss = apart**2 / (2 * sigma2)
    assert loss == pytest.approx(beta**2 / (2 * sigma2 * (1 - beta) * (1 - bar)) * error**2)
    of_x0 = (1 - bar) / bar * error**2  # the same error, as one of x_0
    assert loss == pytest.approx(0.5 * (before / (1 - before) - bar / (1 - bar)) * of_x0)


def test_6_every_sigma_keeps_the_marginal():
    generator = torch.Generator().manual_seed(0)
    eps, z = torch.randn(2, 1_000_000, generator=generator, dtype=F64)
    bar, x0 = BARS[300].item(), 0.7
    for sigma in (0.0, 0.3, (1 - bar) ** 0.5):
        x = bar**0.5 * x0 + (1 - bar - sigma**2) ** 0.5 * eps + sigma * z
        assert x.mean().item() == pytest.approx(bar**0.5 * x0, abs=0.005)
        assert x.var().item() == pytest.approx(1 - bar, abs=0.005)


def test_6_is_ddpm_at_its_sigma():
    beta, bar, before = of(400)
    assert (1 - before) / (1 - bar) * (1 - bar / before) == pytest.approx((1 - before) / (1 - bar) * beta)


def test_7_is_the_package_s_guidance():
    one, other = torch.randn(2, 5, dtype=F64)
    assert torch.allclose(guide(one, other, 4.0), one + 4.0 * (other - one))
    assert torch.allclose(guide(one, other, 4.0), (1 + 3.0) * other - 3.0 * one)


@pytest.mark.parametrize("t", T)
def test_8_tweedie(t):
    x = torch.tensor(0.35, dtype=F64, requires_grad=True)
    signal, noise = BARS[t].item() ** 0.5, (1 - BARS[t].item()) ** 0.5
    (score,) = torch.autograd.grad(log_density(x, signal, noise), x)
    assert score.item() == pytest.approx(-means(x.detach(), signal, noise)[1].item() / noise, rel=1e-6)


def test_9_and_10_the_flow_in_both_coordinates():
    beta, bar, x = 3.0, 0.4, torch.tensor(0.6, dtype=F64)  # beta(t) at a moment where alpha_bar(t) is 0.4
    eps = means(x, bar**0.5, (1 - bar) ** 0.5)[1]
    dx = -beta / 2 * x + beta / 2 * eps / (1 - bar) ** 0.5
    dt = 1e-6  # alpha_bar' = -beta alpha_bar
    after = bar * (1 - beta * dt)
    dy = (x + dx * dt) / after**0.5 - x / bar**0.5
    dsigma = (1 / after - 1) ** 0.5 - (1 / bar - 1) ** 0.5
    assert (dy / dsigma).item() == pytest.approx(eps.item(), rel=1e-5)


def test_10_euler_is_the_package_s_ddim():
    x_t, eps = torch.randn(2, 3, dtype=F64)
    state = State(t=500, x_t=x_t, eps=eps, x0_hat=(x_t - 0.6**0.5 * eps) / 0.4**0.5, alpha_bar=0.4)
    y = x_t / 0.4**0.5 + ((1 / 0.7 - 1) ** 0.5 - (1 / 0.4 - 1) ** 0.5) * eps
    assert torch.allclose(0.7**0.5 * y, ddim(state, 0.7, None, lambda: None))


def test_11_the_mean_velocity_carries_the_crowd():
    """Walk from noise by u; the points must end on the data, in equal shares."""
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=F64)
    steps = torch.linspace(1.0, 0.002, 400, dtype=F64).tolist()
    for s, after in zip(steps, steps[1:]):
        weights = torch.softmax(-((x[:, None] - (1 - s) * POINTS) ** 2) / (2 * s**2), dim=1)
        x0 = weights @ POINTS
        x = x + (after - s) * ((x - (1 - s) * x0) / s - x0)
    near = (x[:, None] - POINTS).abs().min(dim=1)
    assert near.values.max() < 0.3 and near.values.mean() < 0.02
    shares = near.indices.bincount() / len(x)
    assert (shares - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("t", T)
def test_12_the_change_of_coordinates(t):
    bar = BARS[t].item()
    sigma = (1 / bar - 1) ** 0.5
    s = sigma / (1 + sigma)
    assert sigma == pytest.approx(s / (1 - s))
    x0, eps = 0.7, -1.3
    x_t = bar**0.5 * x0 + (1 - bar) ** 0.5 * eps
    assert (1 - s) / bar**0.5 * x_t == pytest.approx((1 - s) * x0 + s * eps)


def test_the_schedule_is_the_shipped_model_s():
    schedule = ldm.load().schedule
    assert torch.allclose(torch.as_tensor(schedule.alpha_bars, dtype=F64), BARS, rtol=1e-6)

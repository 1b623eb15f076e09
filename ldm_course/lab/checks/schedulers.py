"""The exercises of notebook 03's second half."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import sqrt

import torch
from PIL import Image
from torch import Tensor

from ldm_course import schedulers
from ldm_course.checkpoint import LatentDiffusion
from ldm_course.lab.checks.verdict import RIGHT, STEPS, Verdict, compare, draws, plugged
from ldm_course.pipelines import txt2img

LEVELS = ((0.05, 0.1), (0.5, 0.6), (0.9, 0.98))  # alpha_bar_t and alpha_bar_prev of three steps


def more_noise(yours: Callable[[Tensor, Tensor, float, float], Tensor]) -> Verdict:
    """Exercise 2: from one noise level to a higher one."""

    def right(x: Tensor, noise: Tensor, now: float, later: float) -> Tensor:
        return sqrt(later / now) * x + sqrt(1 - later / now) * noise

    mistakes = [
        (
            lambda x, e, now, later: sqrt(later) * x + sqrt(1 - later) * e,
            "That is the way from a clean latent. x_s has noise in it already, and has lost signal: only the rest of "
            "both is left to do.",
        ),
        (
            lambda x, e, now, later: sqrt(later / now) * x + (sqrt(1 - later) - sqrt(1 - now)) * e,
            "Noises that know nothing of each other add up in their variance, not in their standard deviation: try "
            "to make the variance come out at 1 - alpha_bar_t.",
        ),
        (
            lambda x, e, now, later: sqrt(later / now) * x + sqrt(now - later) * e,
            "The noise that is there shrinks with the signal, so more than alpha_bar_s - alpha_bar_t has to come in.",
        ),
        (
            lambda x, e, now, later: sqrt(later / now) * x + sqrt(1 - later) * e,
            "Too much noise: what x_s brings along is counted twice.",
        ),
        (
            lambda x, e, now, later: later / now * x + (1 - later / now) * e,
            "The square roots are missing: alpha_bar is a share of the variance, the weights are its roots.",
        ),
        (
            lambda x, e, now, later: x + sqrt(now - later) * e,
            "The signal must shrink, too, or the whole grows with each step.",
        ),
        (
            lambda x, e, now, later: sqrt(1 - later / now) * x + sqrt(later / now) * e,
            "The two weights are swapped: near alpha_bar_s there is nearly nothing to add.",
        ),
    ]
    return compare(yours, right, [(*draws(2), *levels[::-1]) for levels in LEVELS], mistakes)


def ddpm_mean(yours: Callable[[Tensor, Tensor, float, float], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 3: the posterior's mean, written with eps; first alone, then in the real pipeline."""
    step = schedulers.ddpm_step

    def right(x_t: Tensor, eps: Tensor, now: float, prev: float) -> Tensor:
        return step(x_t, eps, now, prev, torch.zeros_like(x_t))

    def plugged_step(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor) -> Tensor:
        return yours(x_t, eps, now, prev) + step(0 * x_t, 0 * eps, now, prev, noise)

    mistakes = [
        (
            lambda x, e, now, prev: (x - (1 - now / prev) * e) / sqrt(now / prev),
            "beta_t is not yet divided by sqrt(1 - alpha_bar_t).",
        ),
        (
            lambda x, e, now, prev: x - (1 - now / prev) / sqrt(1 - now) * e,
            "The division by sqrt(alpha_t) is missing: what is left must grow.",
        ),
        (
            lambda x, e, now, prev: sqrt(now / prev) * (x - (1 - now / prev) / sqrt(1 - now) * e),
            "It multiplies by sqrt(alpha_t): that is the way to more noise. Going back divides by it.",
        ),
        (
            lambda x, e, now, prev: (x - sqrt(1 - now) * e) / sqrt(now / prev),
            "It takes all the noise out, sqrt(1 - alpha_bar_t) * eps; the mean takes out less.",
        ),
        (
            lambda x, e, now, prev: (x - (1 - now) / sqrt(1 - now) * e) / sqrt(now),
            "That is x0_hat: alpha_t is the share of this one step, alpha_bar_t / alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: (x - (1 - now / prev) / sqrt(1 - prev) * e) / sqrt(now / prev),
            "beta_t is divided by sqrt(1 - alpha_bar_prev); it is alpha_bar_t, the level that x_t is at.",
        ),
        (
            lambda x, e, now, prev: (x + (1 - now / prev) / sqrt(1 - now) * e) / sqrt(now / prev),
            "The sign is wrong: this puts noise in.",
        ),
        (
            lambda x, e, now, prev: schedulers.ddim_step(x, e, now, prev),
            "That is DDIM's step. It keeps more of eps, because no fresh noise comes after it.",
        ),
    ]
    verdict = compare(yours, right, [(*draws(2), *levels) for levels in LEVELS], mistakes)
    paint = functools.partial(_painted, model, "ddpm")
    return plugged(model, paint, ddpm_step=plugged_step) if verdict.status == RIGHT else verdict


EtaStep = Callable[[Tensor, Tensor, float, float, Tensor, float], Tensor]


def eta_step(yours: EtaStep, model: LatentDiffusion) -> Verdict:
    """Exercise 4: one step that is DDIM at eta = 0 and DDPM at eta = 1; then, as DDPM, in the real pipeline."""

    def with_parts(
        eps_share: Callable[[float, float], float], noise_share: Callable[[float], float] = lambda sigma: sigma
    ) -> EtaStep:
        def step(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
            sigma = eta * sqrt((1 - prev) / (1 - now) * (1 - now / prev))
            x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
            return sqrt(prev) * x0_hat + eps_share(1 - prev, sigma) * eps + noise_share(sigma) * noise

        return step

    def beta_for_sigma(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        sigma = eta * sqrt(1 - now / prev)
        x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
        return sqrt(prev) * x0_hat + sqrt(max(0.0, 1 - prev - sigma**2)) * eps + sigma * noise

    right = with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)))
    mistakes = [
        (
            with_parts(lambda room, sigma: sqrt(room)),
            "Too much noise: if sigma * noise comes in, the weight of eps must shrink, so that both together have "
            "the variance 1 - alpha_bar_prev.",
        ),
        (
            with_parts(lambda room, sigma: sqrt(room) - sigma),
            "Variances add up, not standard deviations: the weight of eps is sqrt(1 - alpha_bar_prev - sigma²).",
        ),
        (
            with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)), lambda sigma: sigma**2),
            "The noise has variance sigma², so its weight is sigma.",
        ),
        (
            with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)), lambda sigma: 0.0),
            "The fresh noise is missing: + sigma * noise.",
        ),
        (
            lambda x, e, now, prev, noise, eta: schedulers.ddim_step(x, e, now, prev),
            "That is DDIM whatever eta says: use eta, and the noise.",
        ),
        (
            lambda x, e, now, prev, noise, eta: schedulers.ddpm_step(x, e, now, prev, noise),
            "That is DDPM whatever eta says: use eta.",
        ),
        (
            beta_for_sigma,
            "sigma is eta times the root of the *posterior's* variance, not of beta_t: the factor "
            "(1 - alpha_bar_prev) / (1 - alpha_bar_t) is missing.",
        ),
    ]
    cases = [(*draws(2), *levels, *draws(1, seed=5), eta) for levels in LEVELS for eta in (0.0, 0.5, 1.0)]
    verdict = compare(yours, right, cases, mistakes)
    if verdict.status != RIGHT:
        return verdict
    paint = functools.partial(_painted, model, "ddpm")
    return plugged(model, paint, ddpm_step=functools.partial(_with_eta, yours, 1.0))


def _with_eta(yours: EtaStep, eta: float, x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor) -> Tensor:
    return yours(x_t, eps, now, prev, noise, eta)


def _painted(model: LatentDiffusion, scheduler: str) -> Image.Image:
    picture = txt2img(model, "a dog with glasses", seed=0, num_inference_steps=STEPS, scheduler=scheduler)
    assert isinstance(picture, Image.Image)
    return picture

"""Checks of notebook 04's exercises."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm_course import sampling
from ldm_course.lab.shared.verdict import RIGHT, Verdict, compare, draws, plugged
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import Noise, State
from ldm_course.schedule import NoiseSchedule


def nearest_caption(yours: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Exercise 1: which of m captions is nearest to each of n images, by the directions of their vectors."""

    def cosines(image: Tensor, text: Tensor) -> Tensor:
        return F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # (n, m)

    mistakes = [
        (
            lambda i, t: (i @ t.T).argmax(dim=1),
            "Long caption vectors win here. Only directions count: divide each vector by its length first.",
        ),
        (
            lambda i, t: torch.cdist(i, t).argmin(dim=1),
            "This compares end points instead of directions: divide each vector by its length first.",
        ),
        (
            lambda i, t: cosines(i, t).argmax(dim=0),
            "This returns the nearest image of each caption. Return the nearest caption of each image.",
        ),
        (
            lambda i, t: cosines(i, t).argmin(dim=1),
            "This returns the farthest captions. A large cosine means that two vectors are near.",
        ),
        (
            lambda i, t: cosines(i, t).amax(dim=1),
            "This returns the largest cosine of each image. Return the number of the caption that it belongs to.",
        ),
        (
            lambda i, t: cosines(i, t),
            "This returns all cosines. Return, for each image, the number of the caption with the largest one.",
        ),
        (
            lambda i, t: (F.normalize(i, dim=0) @ F.normalize(t, dim=0).T).argmax(dim=1),
            "The lengths are taken along dimension 0, over the batch. A vector lies along dimension 1.",
        ),
    ]
    generator = torch.Generator("cpu").manual_seed(0)
    cases = []
    for n, m in ((7, 5), (6, 6)):
        image, text = (torch.randn(b, 4, generator=generator, dtype=torch.float32, device="cpu") for b in (n, m))
        lengths = torch.linspace(0.3, 3, m, dtype=torch.float32, device="cpu")[:, None]
        cases.append((image, lengths * text))
    return compare(yours, lambda i, t: cosines(i, t).argmax(dim=1), cases, mistakes)


def timesteps(yours: Callable[[int], list[int]]) -> Verdict:
    """Exercise 2: the timesteps of "leading" spacing."""
    right = NoiseSchedule().timesteps
    mistakes = [
        (
            lambda n: right(n)[::-1],
            "The timesteps go up. Sampling starts with the most noise, so reverse the list.",
        ),
        (lambda n: [t - 1 for t in right(n)], "Each timestep is too low by 1: add the offset."),
        (
            lambda n: [1000 - i * (1000 // n) for i in range(n)],
            "The list starts at 1000, which is not a timestep: they run from 0 to T - 1. Leading spacing counts up "
            "from the offset.",
        ),
        (
            lambda n: [999 - i * (1000 // n) for i in range(n)],
            "This is trailing spacing, which counts down from T - 1. Leading spacing counts up from the offset.",
        ),
        (
            lambda n: right(n, "linspace"),
            "This is linspace spacing, which divides the range from T - 1 to 0 evenly. Leading spacing has a stride "
            "of T // n.",
        ),
    ]
    return compare(yours, right, [(50,), (20,), (7,), (2,)], mistakes)


def guide(yours: Callable[[Tensor, Tensor, float], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 3: guidance in the paper's form, first by itself, then in the pipeline."""
    uncond, cond = draws(2)
    mistakes = [
        (
            lambda u, c, s: (1 + s) * c - s * u,
            "The result for guidance_scale = 1 must be eps_cond. Use w = guidance_scale - 1.",
        ),
        (
            lambda u, c, s: u - s * (c - u),
            "The sign is wrong: the result moves away from eps_cond. The weights are 1 + w and -w.",
        ),
        (
            lambda u, c, s: c + s * (c - u),
            "This adds the whole scale to eps_cond. Starting from eps_cond, add only w = guidance_scale - 1.",
        ),
        (
            lambda u, c, s: s * u + (1 - s) * c,
            "The two predictions are swapped: the result follows the empty prompt and avoids the real one.",
        ),
        (
            lambda u, c, s: s * c + (s - 1) * u,
            "The two weights must add up to 1: eps_uncond has the weight -w, so subtract it.",
        ),
        (lambda u, c, s: c, "The result does not depend on guidance_scale."),
    ]
    cases = [(uncond, cond, scale) for scale in (7.5, 1.0, 0.0)]
    verdict = compare(yours, sampling.guide, cases, mistakes)
    return plugged(model, guide=yours) if verdict.status == RIGHT else verdict


def ddim_step(yours: Callable[[Tensor, Tensor, float, float], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 4: DDIM as one weighted sum of x_t and eps, first by itself, then in the pipeline."""

    def right(x_t: Tensor, eps: Tensor, now: float, prev: float) -> Tensor:
        x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
        return sqrt(prev) * x0_hat + sqrt(1 - prev) * eps

    mistakes = [
        (
            lambda x, e, now, prev: x - e,
            "This subtracts all of eps. x_t holds only sqrt(1 - alpha_bar_t) times eps, and a part of it stays.",
        ),
        (
            lambda x, e, now, prev: (x - sqrt(1 - now) * e) / sqrt(now),
            "This returns x0_hat, the estimate of the end. Add noise again, for the level alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev / now) * (x - sqrt(1 - now) * e),
            "No noise is added again: the term sqrt(1 - alpha_bar_prev) * eps is missing.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev / now) * (x - sqrt(1 - now) * e) + sqrt(1 - now) * e,
            "This adds the noise of the old level, sqrt(1 - alpha_bar_t). Use the new level, alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: prev / now * (x - (1 - now) * e) + (1 - prev) * e,
            "The square roots are missing: alpha_bar is a share of the variance, and the weights are its roots.",
        ),
        (
            lambda x, e, now, prev: right(x, e, prev, now),
            "alpha_bar_t and alpha_bar_prev are swapped, so this step adds noise.",
        ),
    ]
    x_t, eps = draws(2)
    cases = [(x_t, eps, *levels) for levels in ((0.05, 0.1), (0.5, 0.6), (0.9, 1.0))]
    verdict = compare(yours, right, cases, mistakes)

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        return yours(now.x_t, now.eps, now.alpha_bar, alpha_bar)

    return plugged(model, ddim=step) if verdict.status == RIGHT else verdict

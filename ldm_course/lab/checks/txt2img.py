"""The exercises of notebook 04."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm_course import sampling, schedulers
from ldm_course.checkpoint import LatentDiffusion
from ldm_course.lab.checks.verdict import RIGHT, Verdict, compare, draws, plugged


def nearest_caption(yours: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Exercise 1: which of m captions is nearest to each of n pictures, by their vectors' directions."""

    def cosines(image: Tensor, text: Tensor) -> Tensor:
        return F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # (n, m)

    mistakes = [
        (
            lambda i, t: (i @ t.T).argmax(dim=1),
            "The longest vectors win. Only directions count: divide each vector by its length first.",
        ),
        (
            lambda i, t: torch.cdist(i, t).argmin(dim=1),
            "That compares places and not directions: divide each vector by its length first.",
        ),
        (
            lambda i, t: cosines(i, t).argmax(dim=0),
            "That is the nearest picture of each caption, the other way round.",
        ),
        (lambda i, t: cosines(i, t).argmin(dim=1), "Those are the farthest captions: a cosine is large when near."),
        (lambda i, t: cosines(i, t).amax(dim=1), "That is how near it is. Asked is which one: its number."),
        (lambda i, t: cosines(i, t), "Those are all the cosines. Asked is, for each picture, the largest's number."),
        (
            lambda i, t: (F.normalize(i, dim=0) @ F.normalize(t, dim=0).T).argmax(dim=1),
            "The lengths are taken over the pictures, along dimension 0; a vector lies along dimension 1.",
        ),
    ]
    generator = torch.Generator().manual_seed(0)
    cases = []
    for n, m in ((7, 5), (6, 6)):
        image, text = (torch.randn(count, 4, generator=generator) for count in (n, m))
        cases.append((image, text * torch.linspace(0.3, 3, m)[:, None]))
    return compare(yours, lambda i, t: cosines(i, t).argmax(dim=1), cases, mistakes)


def timesteps(yours: Callable[[int], list[int]]) -> Verdict:
    """Exercise 2: the timesteps of "leading" spacing."""
    right = schedulers.NoiseSchedule().timesteps
    mistakes = [
        (lambda n: right(n)[::-1], "They rise; painting starts at the noisiest one, so turn them round."),
        (lambda n: [t - 1 for t in right(n)], "Each is 1 too low: the offset is missing."),
        (
            lambda n: [1000 - i * (1000 // n) for i in range(n)],
            "They start at 1000, and that is no timestep: T of them are counted from 0 to T - 1. Leading spacing "
            "counts up from the offset.",
        ),
        (
            lambda n: [999 - i * (1000 // n) for i in range(n)],
            "That is trailing spacing, down from T - 1; leading spacing counts up from the offset.",
        ),
        (
            lambda n: right(n, "linspace"),
            "That is linspace spacing, from T - 1 to 0 in even parts; leading spacing has a stride of T // n.",
        ),
    ]
    return compare(yours, right, [(50,), (20,), (7,), (2,)], mistakes)


def guided_eps(yours: Callable[[Tensor, Tensor, float], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 3: guidance as the paper writes it; first alone, then in the real pipeline."""
    uncond, cond = draws(2)
    mistakes = [
        (
            lambda u, c, s: (1 + s) * c - s * u,
            "At guidance_scale = 1 it must give eps_cond; yours goes a step further: w is guidance_scale - 1.",
        ),
        (
            lambda u, c, s: u - s * (c - u),
            "The sign is wrong: it leads away from eps_cond. The weights are 1 + w and -w.",
        ),
        (
            lambda u, c, s: c + s * (c - u),
            "It starts at eps_cond and adds the whole scale; from there only w = guidance_scale - 1 is left to go.",
        ),
        (
            lambda u, c, s: s * u + (1 - s) * c,
            "The two predictions are swapped: it follows the empty prompt and avoids yours.",
        ),
        (
            lambda u, c, s: s * c + (s - 1) * u,
            "The weights must add up to 1; that of eps_uncond is -w, so it is subtracted.",
        ),
        (lambda u, c, s: c, "It leaves guidance_scale out."),
    ]
    cases = [(uncond, cond, scale) for scale in (7.5, 1.0, 0.0)]
    verdict = compare(yours, sampling.guided_eps, cases, mistakes)
    return plugged(model, guided_eps=yours) if verdict.status == RIGHT else verdict


def ddim_step(yours: Callable[[Tensor, Tensor, float, float], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 4: DDIM as one weighted sum of x_t and eps; first alone, then in the real pipeline."""
    x_t, eps = draws(2)
    mistakes = [
        (
            lambda x, e, now, prev: x - e,
            "That is plain subtraction. x_t holds sqrt(1 - alpha_bar_t) of eps, and some of it goes back in.",
        ),
        (
            lambda x, e, now, prev: (x - sqrt(1 - now) * e) / sqrt(now),
            "That is x0_hat, all the way in one step; mix it with eps again, for the level alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev / now) * (x - sqrt(1 - now) * e),
            "No noise goes back in: sqrt(1 - alpha_bar_prev) * eps is missing.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev / now) * (x - sqrt(1 - now) * e) + sqrt(1 - now) * e,
            "As much noise goes back in as was there, sqrt(1 - alpha_bar_t); the new level is alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: prev / now * (x - (1 - now) * e) + (1 - prev) * e,
            "The square roots are missing: alpha_bar is a share of the variance, the weights are its roots.",
        ),
        (
            lambda x, e, now, prev: sqrt(now / prev) * (x - sqrt(1 - prev) * e) + sqrt(1 - now) * e,
            "alpha_bar_t and alpha_bar_prev are swapped: this step adds noise.",
        ),
    ]
    cases = [(x_t, eps, *levels) for levels in ((0.05, 0.1), (0.5, 0.6), (0.9, 1.0))]
    verdict = compare(yours, schedulers.ddim_step, cases, mistakes)
    return plugged(model, ddim_step=yours) if verdict.status == RIGHT else verdict

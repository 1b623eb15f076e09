"""A world of two dimensions for notebook 03: three islands of points, where the best denoiser is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from ldm_course.samplers import State, Step
from ldm_course.scenes import Scene
from ldm_course.schedule import NoiseSchedule

ANIMALS = ("dog", "cat", "rabbit")
CENTRES = ((-1.0, -0.6), (0.0, 1.05), (1.0, -0.6))  # of the islands, before the scaling
WIDTH = 2.5  # of a whole scene


def islands(count: int = 1500, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points on the faces of three animals: (count, 2) with mean 0 and standard deviation 1 on each axis.

    Also which animal each point belongs to, (count,): 0, 1 or 2.
    """
    rng, points, which = np.random.default_rng(seed), [], []
    for i, (animal, centre) in enumerate(zip(ANIMALS, CENTRES)):
        scene = Scene(animal=animal, action="sitting", place="beach")
        face, eyes = (np.asarray(scene.mask(part)) > 127 for part in ("face", "eyes"))
        rows, columns = np.nonzero(face & ~eyes)
        picks = rng.choice(len(rows), count // 3 + (i < count % 3), replace=False)
        places = np.stack([columns, -rows], axis=1)[picks] + rng.uniform(-0.5, 0.5, (len(picks), 2))
        middle = (np.array([columns.max() + columns.min(), -rows.max() - rows.min()])) / 2
        points.append((places - middle) / 128 * WIDTH + centre)
        which += [i] * len(picks)
    together = torch.tensor(np.concatenate(points), dtype=torch.float32, device="cpu")
    together = (together - together.mean(dim=0)) / together.std(dim=0)
    return together, torch.tensor(which, dtype=torch.int64, device="cpu")


def best_guess(x_t: Tensor, alpha_bar: float, points: Tensor) -> Tensor:
    """E[x_0 | x_t], the mean of all points that x_t may have come from, weighted by how likely each is: (n, 2)."""
    squared = (x_t[:, None] - sqrt(alpha_bar) * points).square().sum(dim=2)  # (n, points)
    return (-squared / (2 * (1 - alpha_bar))).softmax(dim=1) @ points


def landed(x: Tensor, points: Tensor, which: Tensor) -> Tensor:
    """The island of the point that is nearest to each of x (n, 2): (n,)."""
    return which[torch.cdist(x, points).argmin(dim=1)]


def walk(
    step: Step,
    x_T: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    points: Tensor,
    noise: Callable[[], Tensor] | None = None,
) -> list[State]:
    """The loop of `ldm.denoise` with the best guess in place of a network, down to no noise at all."""
    states: list[State] = []
    levels = [*map(schedule.alpha_bar, timesteps), 1.0]
    x_t = x_T
    for t, alpha_bar, alpha_bar_prev in zip(timesteps, levels, levels[1:]):
        x0_hat = best_guess(x_t, alpha_bar, points)
        eps = (x_t - sqrt(alpha_bar) * x0_hat) / sqrt(1 - alpha_bar)
        states.append(State(t, x_t, eps, x0_hat, alpha_bar))
        before = states[-2] if len(states) > 1 else None
        x_t = step(states[-1], alpha_bar_prev, before, noise or (lambda: torch.zeros_like(x_T)))
    return [*states, State(-1, x_t, states[-1].eps, x_t, 1.0)]

"""Measures of images and models: proportions with intervals, distances, and the test scenes they are taken on."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course.images import to_tensor
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.scenes import ATTRIBUTES, Scene, random_scene

BATCH = 20  # images generated at once
THUMB = 32  # side at which images are compared pixel by pixel


@dataclass(frozen=True)
class Share:
    """A proportion: `right` of `count`."""

    right: int
    count: int

    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval: from, to."""
        low, high = binomtest(self.right, self.count).proportion_ci(0.95, method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.right / self.count:6.1%}  ({self.right}/{self.count}, 95%: {low:.1%} to {high:.1%})"


def all_right(found: list[dict[str, str]], truth: list[dict[str, str]]) -> Share:
    """In how many images every attribute is right."""
    return Share(sum(one == true for one, true in zip(found, truth)), len(truth))


def test_scenes(count: int, seed: int, held_out: bool | None) -> list[Scene]:
    """Scenes that no training set has: never held-out ones (False), only those (True), or any (None)."""
    return [random_scene(random.Random(f"test-{seed}-{held_out}-{i}"), held_out) for i in range(count)]


def render(scenes: list[Scene]) -> Tensor:
    """The scenes' images, (n, 3, 128, 128) in [-1, 1]."""
    return to_tensor([scene.render() for scene in scenes])


def sample_scenes(
    model: LatentDiffusion, scenes: list[Scene], seed: int, settings: dict[str, Any], label: str
) -> Tensor:
    """Generate one image per scene from a random phrasing of its full caption, (n, 3, 128, 128) in [-1, 1].

    `settings` are arguments of `txt2img`, `label` stands on the progress bar.
    """
    texts = [scene.caption(random.Random(f"test-{seed}-{i}"), tuple(ATTRIBUTES)) for i, scene in enumerate(scenes)]
    batches = tqdm(range(0, len(texts), BATCH), desc=f"generating, {label}", unit_scale=BATCH)
    return torch.cat(
        [to_tensor(txt2img(model, texts[i : i + BATCH], seed=1000 * (seed + 1) + i, **settings)) for i in batches]
    )


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images (n, c, h, w) in [-1, 1], in dB, one for each."""
    return -10 * torch.log10((x - y).square().mean(dim=(1, 2, 3)) / 4)


def thumbnails(x: Tensor) -> Tensor:
    """Images (n, 3, 128, 128) in [-1, 1] to (n, 32 * 32 * 3) in [0, 1]."""
    return F.avg_pool2d(x / 2 + 0.5, x.shape[-1] // THUMB).permute(0, 2, 3, 1).flatten(1)


def nearest(x: Tensor, training: Tensor) -> Tensor:
    """Root mean square distance of each thumbnail (n, d) to the nearest of `training` (m, d): (n,)."""
    return torch.cdist(x, training).amin(dim=1) / math.sqrt(x.shape[1])


def mean_distance(x: Tensor) -> float:
    """Mean root mean square distance of two of the images (n, 3, 128, 128) as thumbnails; pixels in [0, 1]."""
    small = thumbnails(x)
    return (torch.pdist(small).mean() / math.sqrt(small.shape[1])).item()


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (n, d), taken as Gaussians (Heusel et al. 2017, eq. 6)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()  # the trace of (cov_a cov_b)^(1/2)
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()

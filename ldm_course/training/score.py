"""What evaluation counts with: shares with intervals, test scenes, painting them, thumbnails."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.images import to_tensor
from ldm_course.pipelines import txt2img
from ldm_course.scenes import ATTRIBUTES, Scene, random_scene

BATCH = 20  # pictures painted at once
THUMB = 32  # side at which pictures are compared with the training pictures


@dataclass(frozen=True)
class Share:
    """`right` of `count`, with Wilson's 95% interval."""

    right: int
    count: int

    def interval(self) -> tuple[float, float]:
        """Wilson 1927: from, to."""
        z, n, p = 1.96, self.count, self.right / self.count
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.right / self.count:6.1%}  ({self.right}/{self.count}, 95%: {low:.1%} to {high:.1%})"


def test_scenes(count: int, seed: int, held_out: bool | None) -> list[Scene]:
    """Scenes that no training set holds: drawn from a seed of their own."""
    return [random_scene(random.Random(f"test-{seed}-{held_out}-{i}"), held_out) for i in range(count)]


def all_right(answers: list[dict[str, str]], truth: list[dict[str, str]]) -> Share:
    """How many of the judge's answers have every attribute right."""
    return Share(sum(answer == true for answer, true in zip(answers, truth)), len(truth))


def paint(model: LatentDiffusion, scenes: list[Scene], seed: int, settings: dict, label: str) -> Tensor:
    """One picture per scene from a random phrasing of its full caption, (n, 3, 128, 128) in [-1, 1]."""
    texts = [scene.caption(random.Random(f"test-{seed}-{i}"), tuple(ATTRIBUTES)) for i, scene in enumerate(scenes)]
    images: list[Image.Image] = []
    for i in tqdm(range(0, len(texts), BATCH), desc=f"painting, {label}", unit_scale=BATCH):
        batch = txt2img(model, texts[i : i + BATCH], seed=1000 * (seed + 1) + i, **settings)
        images += batch if isinstance(batch, list) else [batch]
    return torch.cat([to_tensor(image) for image in images])


def thumbnails(x: Tensor) -> Tensor:
    """Pictures (n, 3, 128, 128) in [-1, 1] to (n, 32 * 32 * 3) in [0, 1]."""
    small = torch.nn.functional.avg_pool2d(x / 2 + 0.5, x.shape[-1] // THUMB)
    return small.permute(0, 2, 3, 1).flatten(1)

"""A second opinion on generated images: a ConvNeXt (Liu et al. 2022), trained here and shipped nowhere.

The course's classifier is a plain stack of four convolutions. Whoever trains models by its verdict may end up with
images that please it alone. This one has another architecture (transformers' ConvNeXt, 1.0 million weights, random at
first) and other training scenes. `benchmarks/combinations.py --second FOLDER` trains it into FOLDER, or resumes.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextModel

import ldm_course as ldm
from ldm_course.evaluate.classifier import classify
from ldm_course.evaluate.metrics import all_right, render, test_scenes
from ldm_course.scenes import ATTRIBUTES
from ldm_course.train import loop
from ldm_course.train.classifier import train_classifier

STEPS = 2500  # of 64 images


class SecondClassifier(nn.Module):
    """Images (b, 3, 128, 128) in [-1, 1] to one vector of logits per attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.convnext = ConvNextModel(
            ConvNextConfig(patch_size=4, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 2, 1])
        )
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.convnext(x).pooler_output  # (b, 256)
        return {name: head(features) for name, head in self.heads.items()}


def second_classifier(folder: Path) -> SecondClassifier:
    """Train it in `folder`, or go on where an earlier run stopped; prints how often it is right about new scenes."""
    options = loop.Options(folder, steps=STEPS, batch_size=64, dataset_size=12_000, seed=2, resume=True)
    trained = train_classifier(options, folder / "data", SecondClassifier(), ldm.load().vae)
    scenes = test_scenes(500, 7, None)
    right = all_right(classify(trained, render(scenes)), [scene.attributes() for scene in scenes])
    print(f"second classifier, all five right, as rendered: {right}")
    return trained

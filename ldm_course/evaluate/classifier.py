"""A small classifier of an image's five attributes, to measure whether generated images show what was asked for.

It is trained apart from the model (`train.classifier`) and has seen every combination, held-out ones included.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm_course.scenes import ATTRIBUTES

WEIGHTS = "judge/model.safetensors"  # in a model's folder, under the name it had when the first model was shipped


class Classifier(nn.Module):
    """Images (b, 3, 128, 128) in [-1, 1] to one vector of logits per attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        self.convs = nn.ModuleList(
            [nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in zip(widths, widths[1:])]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in widths[1:]])
        self.hidden = nn.Linear(2 * widths[-1], 128)
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in ATTRIBUTES.items()})

    def features(self, x: Tensor) -> Tensor:
        """The input of the heads, (b, 128); also the space in which sets of images are compared."""
        for conv, norm in zip(self.convs, self.norms):
            x = F.silu(norm(conv(x)))  # (b, c, h/2, w/2)
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)  # (b, 256)
        return F.silu(self.hidden(pooled))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {name: head(features) for name, head in self.heads.items()}


def load_classifier(folder: Path) -> Classifier:
    """The classifier in a model's folder, float32, on the CPU."""
    classifier = Classifier()
    classifier.load_state_dict(load_file(folder / WEIGHTS))
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def classify(classifier: Callable[[Tensor], dict[str, Tensor]], x: Tensor) -> list[dict[str, str]]:
    """The attributes that the classifier finds in images (n, 3, 128, 128) in [-1, 1]: one dict per image."""
    logits = [classifier(batch) for batch in x.split(100)]
    best = {name: torch.cat([batch[name].argmax(1) for batch in logits]).tolist() for name in ATTRIBUTES}
    return [{name: ATTRIBUTES[name][best[name][i]] for name in ATTRIBUTES} for i in range(len(x))]

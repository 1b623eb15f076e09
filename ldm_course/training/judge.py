"""The judge: a small classifier that reads a picture's five attributes, to score what the model paints.

It is trained apart from the model and may see every combination, those held out from the model included.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm_course.scenes import ATTRIBUTES
from ldm_course.vae import AutoencoderKL

if TYPE_CHECKING:  # what only its training needs: a notebook reads pictures without accelerate
    from ldm_course.training import loop

ROUND_TRIPS = 4_000  # training pictures that are also shown as the VAE returns them


class Judge(nn.Module):
    """Pictures (b, 3, 128, 128) in [-1, 1] to one vector of logits per attribute."""

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
        """What the heads read, (b, 128); also the space in which picture sets are compared."""
        for conv, norm in zip(self.convs, self.norms):
            x = F.silu(norm(conv(x)))  # (b, c, h/2, w/2)
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)  # (b, 256)
        return F.silu(self.hidden(pooled))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {name: head(features) for name, head in self.heads.items()}


def load_judge(folder: Path) -> Judge:
    """The judge in a model's folder, float32."""
    judge = Judge()
    judge.load_state_dict(load_file(folder / "judge" / "model.safetensors"))
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def read(judge: Judge, x: Tensor) -> list[dict[str, str]]:
    """The attributes that the judge sees in pictures (b, 3, 128, 128) in [-1, 1]."""
    answers = [judge(part) for part in x.split(100)]
    chosen = {name: torch.cat([answer[name].argmax(1) for answer in answers]).tolist() for name in ATTRIBUTES}
    return [{name: ATTRIBUTES[name][chosen[name][i]] for name in ATTRIBUTES} for i in range(len(x))]


class Trainer(nn.Module):
    """Pictures and true attributes, (b, 5) of indices, to the sum of the five cross-entropies."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    def forward(self, x: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.judge(x)
        losses = [F.cross_entropy(logits[name].float(), targets[:, i]) for i, name in enumerate(ATTRIBUTES)]
        right = torch.stack([logits[name].argmax(1) == targets[:, i] for i, name in enumerate(ATTRIBUTES)])
        return torch.stack(losses).sum(), {"all_right": right.all(dim=0).float().mean()}


def blurred(x: Tensor) -> Tensor:
    """Pictures as if seen through a weak lens, and a little noisy: the judge must not rest on the finest pixels."""
    small = F.avg_pool2d(x, 2)
    return F.interpolate(small, scale_factor=2, mode="bilinear") + 0.05 * torch.randn_like(x)


def train_judge(options: loop.Options, data_folder: Path, vae: AutoencoderKL) -> Judge:
    """Train on scenes of every kind: as drawn, blurred, and after the VAE."""
    from ldm_course.training import data, loop

    torch.manual_seed(options.seed)
    images = data.pictures(data_folder, "judge", options.seed, options.pictures)
    values = [data.judge_scene(options.seed, i).attributes() for i in range(options.pictures)]
    targets = torch.tensor([[ATTRIBUTES[name].index(v[name]) for name in ATTRIBUTES] for v in values])
    with torch.no_grad():
        starts = range(0, min(ROUND_TRIPS, options.pictures), 50)
        parts = [data.to_tensor(images[i : min(i + 50, ROUND_TRIPS)]) for i in starts]
        returned = torch.cat([vae.decode(vae.encode(part).mean).clamp(-1, 1).half() for part in parts])

    def loss_of(model: Trainer, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step % 3 == 0:
            indices = indices % len(returned)
            x = returned[indices].float()
        else:
            indices = np.sort(indices)
            x = data.to_tensor(images[indices])
            x = blurred(x) if step % 3 == 1 else x
        device = next(model.parameters()).device
        return model(x.to(device), targets[indices].to(device))

    return loop.train("judge", Trainer(Judge()), loss_of, options).judge

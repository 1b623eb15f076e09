"""Tiny trainings. As a script one that train/test_distributed.py launches on several processes, and that
robustness/test_faults.py kills."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ldm_course.train import loop

DATASET_SIZE = 64


def options(out: Path, **changes: Any) -> loop.Options:
    settings = {"steps": 12, "batch_size": 8, "precision": "no", "dataset_size": 100, "checkpoint_minutes": 1e-9}
    return loop.Options(out=out, **{**settings, **changes})


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def regression(stop_at: int | None = None) -> loop.LossOf:
    """A tiny task whose loss depends on the images drawn and on torch's noise; can break off at a step."""

    def loss_of(model: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.tensor(indices, dtype=torch.float32)[:, None] / 100
        return (model(x) - 3 * x + 0.1 * torch.randn_like(x)).square().mean(), {}

    return loss_of


def main(out: Path, steps: int, stop_at: int | None, resume: bool) -> None:
    """A checkpoint after each step, and noise that is fixed for each image."""
    generator = torch.Generator().manual_seed(0)
    images, noises = torch.randn(2, DATASET_SIZE, 8, generator=generator)

    def loss_of(model: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == stop_at:
            raise KeyboardInterrupt
        error = (model(images[indices] + noises[indices]) - noises[indices]).square().mean()
        return error, {"mse": error.detach()}

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))
    changes = {"steps": steps, "batch_size": 16, "learning_rate": 0.01, "dataset_size": DATASET_SIZE}
    averaged = loop.train("tiny", net, loss_of, options(out, **changes, resume=resume))
    torch.save(averaged.state_dict(), out / f"averaged-{os.environ.get('RANK', '0')}.pt")


if __name__ == "__main__":
    out, steps, stop_at, mode = sys.argv[1:]
    main(Path(out), int(steps), int(stop_at) if stop_at != "-" else None, mode == "resume")

"""A tiny training, its noise fixed for each picture: test_distributed.py launches it on several processes, and
test_faults.py kills it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ldm_course.training import loop

PICTURES = 64


class Trainer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))

    def forward(self, noisy: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self.net(noisy) - noise).square().mean()
        return error, {"mse": error.detach()}


def main(out: Path, stop_at: int | None, resume: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures, noises = torch.randn(2, PICTURES, 8, generator=generator)

    def loss_of(model: Trainer, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == stop_at:
            raise KeyboardInterrupt
        return model(pictures[indices] + noises[indices], noises[indices])

    options = loop.Options(
        out=out, steps=200, batch_size=16, learning_rate=0.01, precision="no", pictures=PICTURES,
        checkpoint_minutes=1e-9, resume=resume,
    )  # fmt: skip
    torch.manual_seed(0)
    averaged = loop.train("tiny", Trainer(), loss_of, options)
    torch.save(averaged.state_dict(), out / f"averaged-{os.environ.get('RANK', '0')}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2] != "-" else None, sys.argv[3] == "resume")

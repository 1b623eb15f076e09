"""Train the classifier that evaluation uses. It may see every combination, those held out from the model included."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_course.images import pixels_to_tensor
from ldm_course.scenes import ATTRIBUTES
from ldm_course.scenes.dataset import classifier_scene
from ldm_course.train import data, loop
from ldm_course.vae import AutoencoderKL

M = TypeVar("M", bound=nn.Module)
ROUND_TRIPS = 4_000  # training images that are also shown as the VAE reconstructs them


def blurred(x: Tensor) -> Tensor:
    """Images out of focus and a little noisy, so that the classifier does not depend on the finest pixels."""
    small = F.avg_pool2d(x, 2)
    return F.interpolate(small, scale_factor=2, mode="bilinear") + 0.05 * torch.randn_like(x)


def classifier_loss(logits: dict[str, Tensor], targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the five cross-entropies, and the share of images with all attributes right.

    `logits` has (b, values) for each attribute, `targets` the indices of the true values, (b, 5).
    """
    losses = [F.cross_entropy(logits[name].float(), targets[:, i]) for i, name in enumerate(ATTRIBUTES)]
    right = torch.stack([logits[name].argmax(1) == targets[:, i] for i, name in enumerate(ATTRIBUTES)])
    return torch.stack(losses).sum(), {"all_right": right.all(dim=0).float().mean()}


def train_classifier(options: loop.Options, data_folder: Path, model: M, vae: AutoencoderKL) -> M:
    """Train on scenes of every kind in turn: after the VAE, blurred, and as rendered.

    `model` maps images to logits by attribute, as `Classifier` does.
    """
    images = data.training_images(data_folder, "classifier", options)
    scenes = [classifier_scene(options.seed, i).attributes() for i in range(options.dataset_size)]
    values = [[ATTRIBUTES[name].index(value) for name, value in scene.items()] for scene in scenes]
    targets = torch.tensor(values, dtype=torch.int64, device="cpu")
    device = loop.processes().device
    reconstructed = _round_trips(vae.to(device), images[:ROUND_TRIPS])

    def loss_of(model: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step % 3 == 0:
            indices = indices % len(reconstructed)
        x = reconstructed[indices].float() if step % 3 == 0 else pixels_to_tensor(images[indices])
        x = blurred(x) if step % 3 == 1 else x
        return classifier_loss(model(x.to(device)), targets[indices].to(device))

    return loop.train("classifier", model, loss_of, options)


@torch.no_grad()
def _round_trips(vae: AutoencoderKL, images: np.ndarray) -> Tensor:
    """Images through the VAE and back, (n, 3, 128, 128), float16 to save memory, on the CPU."""
    device = next(vae.parameters()).device
    batches = (pixels_to_tensor(images[i : i + 50]).to(device) for i in range(0, len(images), 50))
    return torch.cat([vae.decode(vae.encode(x).mean).clamp(-1, 1).half().cpu() for x in batches])

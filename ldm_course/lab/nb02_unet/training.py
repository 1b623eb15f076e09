"""Train a tiny UNet on a tiny world, rabbits on a beach, and measure it on rabbits that it has not seen."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import torch
from torch import Tensor, nn

from ldm_course.images import to_tensor
from ldm_course.loss import diffusion_loss
from ldm_course.model import LatentDiffusion
from ldm_course.scenes import ATTRIBUTES, random_scene
from ldm_course.unet import UNet

STEPS, BATCH, RATE = 150, 16, 3e-3
COLOURS = ATTRIBUTES["colour"]


@functools.lru_cache(maxsize=4)
def rabbits(model: LatentDiffusion, count: int = 120, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents of rabbits that sit on a beach, (count, c, h, w), in six colours in turn, and their contexts."""
    rng, scenes = random.Random(seed), []
    for i in range(count):
        scene = random_scene(rng)  # for its position, size, tilt, light, ...
        scene = replace(scene, animal="rabbit", accessory=None, action="sitting", place="beach")
        scenes.append(replace(scene, colour=COLOURS[i % len(COLOURS)]))
    x0 = model.encode(to_tensor([scene.render(model.native_size) for scene in scenes]))
    texts = model.embed([f"a {colour} rabbit" for colour in COLOURS])
    return x0, texts[torch.arange(count) % len(COLOURS)]


def tiny_unet(model: LatentDiffusion) -> UNet:
    """A small UNet of the model's form, with weights that know nothing."""
    torch.manual_seed(0)
    widths = (24, 48, 64)[: len(model.unet.config.block_out_channels)]
    return UNet(replace(model.unet.config, block_out_channels=widths, norm_num_groups=8)).to(model.device)


def fit(network: nn.Module, model: LatentDiffusion) -> None:
    """Train the network as the notebook trains the tiny UNet."""
    (x0, context), generator = rabbits(model), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    for step in range(STEPS):
        picks = torch.randint(len(x0), (BATCH,), generator=generator)
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 20) * (1 - step / STEPS)
        optimizer.zero_grad()
        diffusion_loss(network, model.schedule, x0[picks], context[picks], generator=generator).backward()
        optimizer.step()


@torch.no_grad()
def error(network: nn.Module, model: LatentDiffusion) -> float:
    """The mean squared error of the predicted noise on 48 fresh rabbits, at timesteps evenly from 300 to 999."""
    x0, context = rabbits(model, 48, seed=1)
    t = torch.linspace(300, 999, len(x0)).round().long()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5)).to(x0)
    answer = network(model.schedule.add_noise(x0, eps, t), t.to(x0.device), context)
    return (answer - eps).square().mean().item()


@functools.lru_cache(maxsize=2)
def given_error(model: LatentDiffusion) -> float:
    """The error of the tiny UNet after the same training."""
    network = tiny_unet(model)
    fit(network, model)
    return error(network, model)

"""Loops with a bug in them, and the images that they make. The learner names the bug from the images."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from PIL import Image
from torch import Tensor

from ldm_course.lab.shared import plots
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import Noise, State
from ldm_course.sampling import denoise, draw_noise

SEEDS = (12, 2)
STEPS, GUIDANCE = 20, 4.0


@dataclass(frozen=True)
class Bug:
    """number: of the bug in the notebook's list. hint: what in the column gives it away."""

    number: int
    hint: str


BUGS = {
    "A": Bug(5, "the scene is all there, dog and glasses too. So the loop is right, and what comes after it is not."),
    "B": Bug(1, "nothing but a blur. What can the UNet do with a latent that has no noise in it?"),
    "C": Bug(2, "the images are clean, but look at the animals, and at what they wear. What do they all avoid?"),
    "D": Bug(4, "a dog shows through grains of every colour. Something in x_t does not get less."),
}


@torch.no_grad()
def images(model: LatentDiffusion, bug: str | None, prompt: str = "a dog with glasses") -> list[Image.Image]:
    """One image per seed from the loop with the bug of that letter; None is the right loop."""
    context, empty = model.embed([prompt, ""]).chunk(2)
    if bug == "C":
        context, empty = empty, context
    b, size = len(SEEDS), model.native_latent_size
    x_T = torch.cat([draw_noise((1, 4, size, size), torch.Generator("cpu").manual_seed(seed)) for seed in SEEDS])

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        if bug == "B":
            return now.x0_hat
        level = now.alpha_bar if bug == "D" else alpha_bar
        return sqrt(alpha_bar) * now.x0_hat + sqrt(1 - level) * now.eps

    *_, end = denoise(
        model,
        x_T,
        context.expand(b, -1, -1),
        model.schedule.timesteps(STEPS),
        negative_context=empty.expand(b, -1, -1),
        guidance_scale=GUIDANCE,
        step=step,
    )
    z = end.x_t * (model.vae.config.scaling_factor if bug == "A" else 1)
    return [plots.decoded(model, one) for one in z.split(1)]


def figure(model: LatentDiffusion) -> Image.Image:
    """A column of images for each bug."""
    columns = [images(model, letter) for letter in BUGS]
    return plots.grid(list(zip(*columns)), list(BUGS), side=160)

"""Loops with a bug in them, and the images that they make. The learner names the bug from the images."""

from __future__ import annotations

from math import sqrt

import torch
from PIL import Image
from torch import Tensor

from ldm_course.lab.shared import plots
from ldm_course.lab.shared.prepared import GUIDANCE, SEED, STEPS
from ldm_course.lab.shared.verdict import Bug
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import Noise, State
from ldm_course.sampling import denoise, draw_noise

BUGS = {
    "A": Bug(5, "the scene is all there, dog and glasses too. So the loop is right, and what comes after it is not."),
    "B": Bug(1, "nothing but a blur. What can the UNet do with a latent that has no noise in it?"),
    "C": Bug(2, "it is clean, but look at the animal, and at what it wears. What does it avoid?"),
    "D": Bug(4, "a dog with glasses shows through grains of every colour. Something in x_t does not get less."),
}


@torch.no_grad()
def image(model: LatentDiffusion, bug: str | None, prompt: str = "a dog with glasses") -> Image.Image:
    """What the loop with the bug of this letter generates; None is the right loop."""
    context, empty = model.embed([prompt, ""]).chunk(2)
    if bug == "C":
        context, empty = empty, context
    size = model.native_latent_size
    x_T = draw_noise((1, model.vae.config.latent_channels, size, size), torch.Generator("cpu").manual_seed(SEED))

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        if bug == "B":
            return now.x0_hat
        level = now.alpha_bar if bug == "D" else alpha_bar
        return sqrt(alpha_bar) * now.x0_hat + sqrt(1 - level) * now.eps

    timesteps = model.schedule.timesteps(STEPS)
    *_, end = denoise(model, x_T, context, timesteps, negative_context=empty, guidance_scale=GUIDANCE, step=step)
    return plots.decoded(model, end.x_t * (model.vae.config.scaling_factor if bug == "A" else 1))


def figure(model: LatentDiffusion) -> Image.Image:
    """An image for each bug, side by side."""
    return plots.grid([[image(model, letter) for letter in BUGS]], list(BUGS), side=224)

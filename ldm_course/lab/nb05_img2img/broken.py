"""Image-to-image with a bug in it, and the images that it makes. The learner names the bug from the images."""

from __future__ import annotations

import torch
from PIL import Image

from ldm_course.images import to_tensor
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.prepared import GUIDANCE, STEPS
from ldm_course.lab.shared.verdict import Bug
from ldm_course.model import LatentDiffusion
from ldm_course.sampling import denoise, draw_noise

SEEDS = (12, 2)
LEFT = 12  # of 20 steps are run: strength 0.6


BUGS = {
    "A": Bug(3, "the images are clean, and the dogs are new. Which steps change the large things?"),
    "B": Bug(1, "the scene is there, but dark and blurred. Its latent is too large for the UNet and the decoder."),
    "C": Bug(4, "both seeds give one image. What does a seed decide?"),
    "D": Bug(2, "stains are left in the sky and on the ears. The loop removed less noise than the start had."),
}


def images(model: LatentDiffusion, scene: Image.Image, bug: str | None, prompt: str) -> list[Image.Image]:
    """One image per seed from image-to-image with the bug of that column; None is the right one."""
    z, every = model.encode(to_tensor(scene)), model.schedule.timesteps(STEPS)
    timesteps = every[:LEFT] if bug == "A" else every[-LEFT:]
    level = {"C": every[-1], "D": every[0]}.get(bug or "", timesteps[0])
    if bug == "B":
        z = z / model.vae.config.scaling_factor
    noise = draw_noise((len(SEEDS), *z.shape[1:]), [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]).to(
        z.device
    )
    context, empty = (part.expand(len(SEEDS), -1, -1) for part in model.embed([prompt, ""]).chunk(2))
    start = model.schedule.add_noise(z, noise, level)
    *_, end = denoise(model, start, context, timesteps, negative_context=empty, guidance_scale=GUIDANCE)
    return [plots.decoded(model, one) for one in end.x_t.split(1)]


def figure(model: LatentDiffusion, scene: Image.Image, prompt: str = "a dog with glasses") -> Image.Image:
    """A column of images for each bug, a row for each seed."""
    columns = [images(model, scene, letter, prompt) for letter in BUGS]
    return plots.grid(list(zip(*columns)), list(BUGS), [f"seed {seed}" for seed in SEEDS], side=208)

"""The studio of notebook 06: an image that follows the mask painted on it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ipywidgets
import torch
from PIL import Image

from ldm_course.images import latent_mask, to_tensor
from ldm_course.lab.shared import live, plots
from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.lab.shared.prepared import GUIDANCE, STEPS, EncodedImage
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import known_region_hook
from ldm_course.sampling import denoise, draw_noise


class Sampler(EncodedImage):
    """In-paints one image under any mask: the image that `ldm.inpaint` returns with composite=True."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int = STEPS):
        super().__init__(model, image, num_inference_steps)

    def __call__(self, prompt: str, mask: Image.Image, seed: int) -> Generator[Image.Image | None, None, None]:
        """Yield once per step: None, and the image at the end. The caller may stop between two steps."""
        cells = latent_mask(mask, self.model.vae.downscale).to(self.model.device)
        generator = torch.Generator("cpu").manual_seed(seed)
        z = self.model.encode(to_tensor(self.image), draw_noise(self.z.shape, generator))
        noise = draw_noise(self.z.shape, generator).to(self.model.device)
        states = denoise(
            self.model,
            noise,
            self.context(prompt),
            self.timesteps,
            negative_context=self.context(""),
            guidance_scale=GUIDANCE,
            after_step=known_region_hook(self.model, z, noise, cells),
        )
        for state in states:
            last = state.t == -1
            yield Image.composite(plots.decoded(self.model, state.x_t), self.image, mask) if last else None


def panel(sampler: Sampler, painter: MaskPainter, prompt: str) -> ipywidgets.Box:
    """The mask painter, a prompt and a seed; each change generates the image beside it anew."""
    text = ipywidgets.Text(value=prompt, continuous_update=False, description="prompt", layout={"width": "384px"})
    seed = ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed", layout={"width": "180px"})
    image = ipywidgets.Image(format="jpeg", layout={"width": "384px"})
    note = ipywidgets.Label()

    def work(_: Any) -> Generator[None, None, None]:
        for result in sampler(text.value, painter.mask_image, seed.value):
            if result is not None:
                note.value, image.value = "", plots.jpeg(result.resize((2 * result.width, 2 * result.height)))
            yield

    newest = live.Newest(work, note)
    painter.observe(newest.request, names="mask")
    for control in (text, seed):
        control.observe(newest.request, names="value")
    newest.request(None)
    box = ipywidgets.HBox([painter, ipywidgets.VBox([image, text, seed, note])], layout={"flex_flow": "row wrap"})
    box.newest = newest  # counts the work that was finished and cancelled
    return box

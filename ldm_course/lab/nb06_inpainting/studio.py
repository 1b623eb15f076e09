"""The studio of notebook 06: an image that follows the mask painted on it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ipywidgets
from PIL import Image

from ldm_course import samplers
from ldm_course.images import latent_mask
from ldm_course.lab.shared import live, plots
from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.lab.shared.prepared import GUIDANCE, EncodedImage
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import known_region_hook
from ldm_course.sampling import denoise

STEPS = 12  # of DPM-Solver++


class Sampler(EncodedImage):
    """Repaints one image under any mask, as `ldm.inpaint` does, with the original pixels outside of the mask."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int = STEPS):
        super().__init__(model, image, num_inference_steps)

    def __call__(self, prompt: str, mask: Image.Image, seed: int) -> Generator[Image.Image | None, None, None]:
        """Yield once per step: None, and the image at the end. The caller may stop between two steps."""
        cells = latent_mask(mask, self.model.vae.downscale).to(self.model.device)
        noise = self.noise(seed)
        states = denoise(
            self.model,
            noise,
            self.context(prompt),
            self.timesteps,
            negative_context=self.context(""),
            guidance_scale=GUIDANCE,
            step=samplers.dpmpp_2m,
            after_step=known_region_hook(self.model, self.z, noise, cells),
        )
        for state in states:
            last = state.t == -1
            yield Image.composite(plots.decoded(self.model, state.x_t), self.image, mask) if last else None


def panel(sampler: Sampler, painter: MaskPainter, prompt: str) -> ipywidgets.Box:
    """The mask painter, a prompt and a seed; each change repaints the image beside it."""
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

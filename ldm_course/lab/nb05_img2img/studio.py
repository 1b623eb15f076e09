"""The studio of notebook 05: an image that follows the strength slider, and a pad to draw on."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Iterator
from typing import Any

import ipywidgets
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ldm_course.errors import InputError
from ldm_course.images import load_image, to_rgb
from ldm_course.lab.shared import live, plots
from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.lab.shared.prepared import GUIDANCE, STEPS, EncodedImage
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import strength_timesteps
from ldm_course.sampling import denoise, draw_noise


class Sampler(EncodedImage):
    """Repaints one image at any strength, as `ldm.img2img` does with the same seed and number of steps."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int = STEPS):
        """num_inference_steps: the number of steps at strength 1."""
        super().__init__(model, image, num_inference_steps)

    def noise(self, seed: int) -> Tensor:
        """The noise that `ldm.img2img` draws, which is its second draw; the first one, for the VAE, is left out."""
        generator = torch.Generator("cpu").manual_seed(seed)
        _, noise = (draw_noise(self.z.shape, generator) for _ in range(2))
        return noise.to(self.z.device)

    def start(self, strength: float, seed: int) -> tuple[Tensor, list[int]]:
        """The noisy latent at this strength, (1, c, h, w), and the timesteps from there."""
        timesteps = strength_timesteps(self.timesteps, strength)
        if not timesteps:
            return self.z, timesteps
        return self.model.schedule.add_noise(self.z, self.noise(seed), timesteps[0]), timesteps

    def __call__(self, prompt: str, strength: float, seed: int) -> Iterator[dict[str, Image.Image] | None]:
        """Yield once per step: the noisy start and a first estimate, then None, at last the start and the result.

        The caller may stop between two steps.
        """
        x, timesteps = self.start(strength, seed)
        start = plots.decoded(self.model, x)
        states = denoise(
            self.model,
            x,
            self.context(prompt),
            timesteps,
            negative_context=self.context(""),
            guidance_scale=GUIDANCE,
        )
        for i, state in enumerate(states):
            if state.t == -1:
                yield {"noisy start": start, "result": plots.decoded(self.model, state.x_t)}
            elif i == 0:
                yield {"noisy start": start, "first estimate": plots.decoded(self.model, state.x0_hat)}
            else:
                yield None


def panel(sampler: Sampler, prompt: str, seed: int = 0) -> ipywidgets.VBox:
    """A strength slider that the image follows while it is dragged, a prompt and a seed.

    Assign to the box's `sampler` to repaint another image; its `newest` counts the work that was finished and
    cancelled.
    """
    layout = {"width": "520px"}
    controls: dict[str, ipywidgets.Widget] = {
        "strength": ipywidgets.FloatSlider(
            value=0.6,
            min=0,
            max=1,
            step=1 / len(sampler.timesteps),
            readout_format=".2f",
            description="strength",
            layout=layout,
        ),
        "prompt": ipywidgets.Text(value=prompt, continuous_update=False, description="prompt", layout=layout),
        "seed": ipywidgets.BoundedIntText(value=seed, min=0, max=9999, description="seed", layout={"width": "180px"}),
    }
    image = ipywidgets.Image(format="jpeg", layout={"max_width": "100%", "width": "592px"})
    note = ipywidgets.Label()
    box = ipywidgets.VBox([*controls.values(), image, note])
    box.sampler = sampler

    def work(values: dict[str, Any]) -> Generator[None, None, None]:
        source = box.sampler.image
        for images in box.sampler(**values):
            if images is not None:
                image.value = plots.jpeg(plots.grid([[source, *images.values()]], ["input", *images]))
                note.value = ""
            yield

    box.newest = live.follow(controls, work, note)
    return box


def uploaded_image(upload: ipywidgets.FileUpload, default: Image.Image) -> Image.Image:
    """The image last chosen with an upload button, or the default before any is chosen.

    Raises InputError if the file is not an image.
    """
    files = upload.value
    if not files:
        return default
    last = list(files.values())[-1] if isinstance(files, dict) else files[-1]  # ipywidgets 7 and 8
    try:
        return load_image(io.BytesIO(bytes(last["content"])))
    except InputError:
        raise InputError("The chosen file is not an image that can be read; choose a PNG or JPEG file.") from None


def landscape(side: int) -> Image.Image:
    """A background to draw on: sky above, sand below."""
    image = Image.new("RGB", (side, side), "#9fd3ef")
    image.paste("#f2d38b", (0, round(0.7 * side), side, side))
    return image


class DrawingPad:
    """Draw on a landscape, or on an image from a file; the model repaints the drawing after each stroke.

    box: the whole widget.
    panel: the part of it with the strength slider and the result.
    """

    def __init__(self, model: LatentDiffusion, prompt: str, drawing: Image.Image | None = None, seed: int = 0):
        """Start with a drawing, cropped to a square, or else with an empty landscape."""
        self.model, self.side = model, model.native_size
        self.ground = landscape(self.side) if drawing is None else self._square(drawing)
        self.painter = MaskPainter(self.ground)
        self.colour = ipywidgets.ColorPicker(value="#8a5a2b", description="colour", layout={"width": "220px"})
        self.upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="choose an image")
        self.note = ipywidgets.Label()
        self._colour = self.colour.value  # of the strokes since the colour was last changed
        self.panel = panel(Sampler(model, self.ground), prompt, seed)
        self.painter.observe(self._on_stroke, names="mask")
        self.colour.observe(self._on_colour, names="value")
        self.upload.observe(self._on_upload, names="value")
        tools = ipywidgets.VBox([ipywidgets.HBox([self.colour, self.upload]), self.note, self.panel])
        self.box = ipywidgets.HBox([self.painter, tools], layout={"flex_flow": "row wrap"})

    @property
    def drawing(self) -> Image.Image:
        """The background with the strokes on it."""
        colour = Image.new("RGB", self.ground.size, self._colour)
        return Image.composite(colour, self.ground, self.painter.mask_image)

    def _square(self, image: Image.Image) -> Image.Image:
        return ImageOps.fit(to_rgb(image), (self.side, self.side), Image.Resampling.LANCZOS)

    def _set_ground(self, ground: Image.Image) -> None:
        """Go on with this background, without strokes."""
        self.ground = ground
        self.painter.image = base64.b64encode(plots.png(ground)).decode()
        if self.painter.mask:
            self.painter.mask = ""  # this calls _on_stroke
        else:
            self._on_stroke(None)

    def _on_stroke(self, _: Any) -> None:
        self.panel.sampler = Sampler(self.model, self.drawing)
        self.panel.newest.request(self.panel.newest.value)

    def _on_colour(self, change: dict) -> None:
        self._set_ground(self.drawing)
        self._colour = change["new"]

    def _on_upload(self, _: Any) -> None:
        try:
            self._set_ground(self._square(uploaded_image(self.upload, self.ground)))
        except InputError as error:
            self.note.value = str(error)
        else:
            self.note.value = ""

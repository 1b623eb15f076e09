"""Notebook 06: masks drawn over pictures, what in-painting changes outside of them, and a studio to paint in."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.errors import InputError
from ldm_course.images import latent_mask
from ldm_course.lab import live, plots
from ldm_course.lab.measure import interval
from ldm_course.lab.painter import MaskPainter
from ldm_course.lab.prepared import GUIDANCE, Prepared
from ldm_course.pipelines import keep_outside
from ldm_course.sampling import denoise
from ldm_course.scenes import ATTRIBUTES, Scene

STUDIO_STEPS = 12  # of DPM-Solver++
TINT = (230, 97, 1)
FAR = 28  # from a colour, root mean square of 255: what is farther is another one

# ---- drawing ---------------------------------------------------------------------------------------------------


def over(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the masked part tinted orange."""
    tinted = Image.blend(image.convert("RGB"), Image.new("RGB", image.size, TINT), 0.6)
    return Image.composite(tinted, image.convert("RGB"), mask.convert("L"))


def cells(image: Image.Image, mask: Image.Image, downscale: int) -> Image.Image:
    """The picture with the mask as the latent knows it: its cells tinted, and lines between them."""
    m = latent_mask(mask, downscale)[0, 0]
    scale = max(1, plots.SIDE // image.width)
    size = (image.width * scale, image.height * scale)
    hard = Image.fromarray((m.numpy() * 255).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    drawn = over(image.resize(size, Image.Resampling.LANCZOS), hard)
    pen = ImageDraw.Draw(drawn)
    for line in range(0, drawn.width, downscale * scale):
        pen.line((line, 0, line, drawn.height), fill="white")
    for line in range(0, drawn.height, downscale * scale):
        pen.line((0, line, drawn.width, line), fill="white")
    return drawn


def change(one: Image.Image, other: Image.Image, gain: float = 4.0) -> Image.Image:
    """Where two pictures differ: black where they do not, and white from 255 / gain on."""
    return Image.fromarray((np.abs(_apart(one, other)).max(axis=2) * gain).clip(0, 255).astype(np.uint8))


def fading(shares: dict[str, Sequence[Sequence[float]]], width: int) -> Figure:
    """Changes against the distance from the mask, each share of several pictures from `change_by_distance`.

    Means over the pictures, with 95% intervals.
    """
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    for (name, lists), colour, style in zip(shares.items(), (plots.BLUE, plots.ORANGE), ("o-", "s--")):
        values = np.asarray(lists)  # (pictures, distances)
        middle, half = interval(torch.from_numpy(values), dim=0)
        distance = (np.arange(values.shape[1]) + 0.5) * width
        axes.errorbar(distance, middle.numpy(), half.numpy(), fmt=style, color=colour, capsize=3, label=name)
    axes.set(xlabel="pixels from the mask", ylabel="change (of 255)", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# ---- measuring -------------------------------------------------------------------------------------------------


def change_outside(one: Image.Image, other: Image.Image, mask: Image.Image) -> float:
    """Root mean square difference of two pictures where the mask is black, in 255ths of a pixel's range.

    Raises:
        InputError: if the mask leaves no pixel out.
    """
    outside = np.asarray(mask.convert("L")) == 0
    if not outside.any():
        raise InputError("The mask covers the whole picture, so nothing is outside of it.")
    return _rms(_apart(one, other)[outside])


def change_inside(one: Image.Image, other: Image.Image, mask: Image.Image) -> float:
    """The same where the mask is not black.

    Raises:
        InputError: if it is black everywhere.
    """
    inside = np.asarray(mask.convert("L")) > 0
    if not inside.any():
        raise InputError("The mask is black everywhere, so nothing is inside of it.")
    return _rms(_apart(one, other)[inside])


def change_by_distance(one: Image.Image, other: Image.Image, mask: Image.Image, width: int) -> list[float]:
    """As `change_outside`, in rings around the mask: up to `width` pixels from it, up to twice as many, and so on."""
    apart = _apart(one, other)
    rings: list[float] = []
    reach = mask.convert("L").point(lambda level: 255 * (level > 0))
    while True:
        wider = reach.filter(ImageFilter.MaxFilter(2 * width + 1))
        ring = np.asarray(wider) > np.asarray(reach)
        if not ring.any():
            return rings
        rings.append(_rms(apart[ring]))
        reach = wider


def seam(image: Image.Image, mask: Image.Image) -> float:
    """Root mean square difference, in 255ths, of neighbouring pixels on the two sides of the mask's edge.

    Raises:
        InputError: if the mask has no edge.
    """
    pixels, inside = np.asarray(image, dtype=float), np.asarray(mask.convert("L")) >= 128
    steps = [np.diff(pixels, axis=axis)[np.diff(inside, axis=axis)] for axis in (0, 1)]
    if not any(len(step) for step in steps):
        raise InputError("The mask has no edge: all of the picture is on one side of it.")
    return _rms(np.concatenate(steps))


def body_colour(image: Image.Image, scene: Scene, mask: Image.Image) -> str:
    """Which of the six colours the body under the mask has, if the scene's animal runs there.

    Each pixel where that body would be drawn votes for the nearest of the six bodies' median colours, unless it is
    far from all of them: a line, or the green of a scarf.
    """
    running = replace(scene, action="running")
    body = (np.asarray(running.mask("body", image.width)) >= 128) & (np.asarray(mask.convert("L")) >= 128)

    def pixels(picture: Image.Image) -> np.ndarray:
        return np.asarray(picture, dtype=float)[body]  # (n, 3)

    colours = ATTRIBUTES["colour"]
    medians = np.stack([np.median(pixels(replace(running, colour=c).render(image.width)), axis=0) for c in colours])
    apart = np.sqrt(np.square(pixels(image)[:, None] - medians).mean(axis=2))  # (n, 6)
    votes = apart.argmin(axis=1)[apart.min(axis=1) < FAR]
    return colours[int(np.bincount(votes, minlength=len(colours)).argmax())]


def _apart(one: Image.Image, other: Image.Image) -> np.ndarray:
    return np.asarray(one, dtype=float) - np.asarray(other, dtype=float)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


# ---- the studio ------------------------------------------------------------------------------------------------


class Inpainter(Prepared):
    """Repaints its picture under any mask."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int = STUDIO_STEPS):
        super().__init__(model, image, num_inference_steps)

    def __call__(self, prompt: str, mask: Image.Image, seed: int) -> Generator[Image.Image | None, None, None]:
        """Repaint under the mask: yields None between steps, and at the end the picture."""
        model = self.model
        m = latent_mask(mask, model.vae.downscale).to(model.device)
        noise = self.noise(seed)

        def after_step(x: Tensor, t_prev: int) -> Tensor:
            return keep_outside(x, self.z, noise, m, 1.0 if t_prev == -1 else model.schedule.alpha_bar(t_prev))

        x = noise
        for state in denoise(
            model,
            noise,
            self.context(prompt),
            self.timesteps,
            negative_context=self.context(""),
            guidance_scale=GUIDANCE,
            scheduler="dpm++",
            after_step=after_step,
        ):
            x = state.x_t
            yield None
        yield Image.composite(plots.decoded(model, x), self.image, mask)


def studio(inpainter: Inpainter, painter: MaskPainter, prompt: str) -> ipywidgets.Box:
    """The mask painter, a prompt and a seed; each change repaints the picture beside it."""
    text = ipywidgets.Text(value=prompt, continuous_update=False, description="prompt", layout={"width": "384px"})
    seed = ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed", layout={"width": "180px"})
    image = ipywidgets.Image(format="jpeg", layout={"width": "384px"})
    note = ipywidgets.Label()

    def work(_: Any) -> Generator[None, None, None]:
        for drawn in inpainter(text.value, painter.mask_image, seed.value):
            if drawn is not None:
                note.value, image.value = "", plots.jpeg(drawn.resize((2 * drawn.width, 2 * drawn.height)))
            yield

    newest = live.Newest(work, note)
    painter.observe(newest.request, names="mask")
    for control in (text, seed):
        control.observe(newest.request, names="value")
    newest.request(None)
    box = ipywidgets.HBox([painter, ipywidgets.VBox([image, text, seed, note])], layout={"flex_flow": "row wrap"})
    box.newest = newest
    return box

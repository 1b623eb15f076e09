"""What notebook 06 draws: masks over images, differences of images, and changes by distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageDraw

from ldm_course.images import latent_mask
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.measure import interval

TINT = (230, 97, 1)  # orange


def overlay_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image with the masked part tinted orange."""
    image = image.convert("RGB")
    tinted = Image.blend(image, Image.new("RGB", image.size, TINT), 0.6)
    return Image.composite(tinted, image, mask.convert("L"))


def overlay_latent_mask(image: Image.Image, mask: Image.Image, downscale: int) -> Image.Image:
    """The image with the latent's mask: the masked cells tinted orange, and a grid of white lines between cells."""
    cells = latent_mask(mask, downscale)[0, 0].numpy()
    scale = max(1, plots.SIDE // image.width)
    size = (image.width * scale, image.height * scale)
    hard = Image.fromarray((cells * 255).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    drawn = overlay_mask(image.resize(size, Image.Resampling.LANCZOS), hard)
    pen = ImageDraw.Draw(drawn)
    for line in range(0, drawn.width, downscale * scale):
        pen.line((line, 0, line, drawn.height), fill="white")
    for line in range(0, drawn.height, downscale * scale):
        pen.line((0, line, drawn.width, line), fill="white")
    return drawn


def difference_image(one: Image.Image, other: Image.Image, gain: float = 4.0) -> Image.Image:
    """The largest difference over the channels, times `gain`: black where two images are equal."""
    difference = np.asarray(ImageChops.difference(one, other)).max(axis=2)
    return Image.fromarray((difference * gain).clip(0, 255).astype(np.uint8))


@plots.style()
def plot_change_by_distance(changes: Mapping[str, Sequence[Sequence[float]]], width: int) -> Figure:
    """Mean changes of n images against the distance from the mask, with 95% intervals.

    changes: name -> n lists from `measures.change_by_distance`.
    width: of its rings, in pixels.
    """
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    for (name, lists), colour, style in zip(changes.items(), (plots.BLUE, plots.ORANGE), ("o-", "s--")):
        values = np.asarray(lists)  # (n, distances)
        middle, half = interval(torch.from_numpy(values), dim=0)
        distance = (np.arange(values.shape[1]) + 0.5) * width
        axes.errorbar(distance, middle.numpy(), half.numpy(), fmt=style, color=colour, capsize=3, label=name)
    axes.set(xlabel="pixels from the mask", ylabel="change (of 255)", xlim=(0, None), ylim=(0, None))
    axes.legend()
    return figure

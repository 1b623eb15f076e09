"""What notebook 04 draws: where the prompt acts, what guidance costs, what is decided when, and a CLIP's table."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm_course.lab.shared import plots
from ldm_course.scenes import ATTRIBUTES

PLACE_COLOURS = {
    "beach": plots.AMBER,
    "forest": plots.GREEN,
    "city": plots.PINK,
    "snow": plots.SKY,
    "room": plots.ORANGE,
}


def strength_map(difference: Tensor) -> Image.Image:
    """How large a latent (c, h, w) is at each cell, over its channels: white is 0, orange the largest."""
    size = difference.detach().float().cpu().square().mean(dim=0).sqrt()
    share = (size / size.max()).numpy()
    pixels = np.stack([np.interp(share, (0.0, 1.0), ends) for ends in zip(plots.MIDDLE, plots.HIGH)], axis=-1)
    image = Image.fromarray(pixels.round().astype(np.uint8))
    cell = plots.SIDE // image.width
    return image.resize((cell * image.width, cell * image.height), Image.Resampling.NEAREST)


@plots.style()
def plot_places(places: dict[str, Sequence[str]]) -> Figure:
    """A bar for each named set of images, cut into the places that they show."""
    figure = Figure(figsize=(8, 0.62 * len(places) + 0.75), layout="constrained")
    axes = figure.subplots()
    for row, shown in enumerate(places.values()):
        left = 0.0
        for place in ATTRIBUTES["place"]:
            count = list(shown).count(place)
            axes.barh(row, count / len(shown), left=left, color=PLACE_COLOURS[place], edgecolor="white", height=0.74)
            if count:
                text = f"{place}\n{count}" if row == 0 else str(count)
                axes.text(left + count / len(shown) / 2, row, text, ha="center", va="center", fontsize=9)
            left += count / len(shown)
    axes.set_yticks(range(len(places)), places)
    axes.set(xlim=(0, 1), xticks=[])
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@plots.style()
def plot_swap(timesteps: Sequence[int], kept: dict[str, Sequence[float]]) -> Figure:
    """When the prompt is swapped against the share of images that keep what the first prompt said."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(kept, ("o", "s", "^")))
    for name, shares in kept.items():
        axes.plot(timesteps, shares, marker=markers[name], label=name, clip_on=False, zorder=3)
    axes.set(
        xlabel="timestep t at which the words change", ylabel="images that keep\nthe first prompt's", ylim=(0, 1),
        xlim=(1000, 0), yticks=(0, 0.5, 1), yticklabels=("none", "half", "all"),
    )  # fmt: skip
    axes.legend(loc="upper left")
    return figure


def similarity_table(
    similarity: Tensor, images: Sequence[Image.Image], captions: Sequence[str], side: int = 96
) -> Image.Image:
    """Cosines of captions, the rows, and images, the columns. A frame marks the caption nearest to each image.

    similarity: (captions, images).
    """
    values = similarity.detach().float().cpu()
    nearest = values.argmax(dim=0).tolist()
    rows = [
        [_cosine_tile(value, nearest[j] == i, side) for j, value in enumerate(row)]
        for i, row in enumerate(values.tolist())
    ]
    return plots.grid([images, *rows], labels=["", *captions], side=side)


def _cosine_tile(value: float, framed: bool, side: int) -> Image.Image:
    r, g, b, _ = matplotlib.colormaps["cividis"]((min(1.0, max(-1.0, value)) + 1) / 2, bytes=True)
    tile = Image.new("RGB", (side, side), (r, g, b))
    pen, font = ImageDraw.Draw(tile), ImageFont.truetype(plots.FONT, 22)
    pen.text((side // 2, side // 2), f"{value:.2f}", "black" if value > 0 else "white", font, anchor="mm")
    if framed:
        pen.rectangle((0, 0, side - 1, side - 1), outline=plots.ORANGE, width=6)
    return tile

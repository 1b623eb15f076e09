"""What notebook 06 draws: masks over images, what changed in the known region, and what each remedy costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from torch import Tensor

from ldm_course.lab.nb06_inpainting.measures import change_outside, difference
from ldm_course.lab.shared import plots

TINT = (230, 97, 1)  # orange
MOST = 40  # of 255: a change drawn in full orange


def overlay_mask(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image with the masked part tinted orange."""
    image = image.convert("RGB")
    tinted = Image.blend(image, Image.new("RGB", image.size, TINT), 0.6)
    return Image.composite(tinted, image, mask.convert("L"))


def overlay_cells(image: Image.Image, cells: Tensor) -> Image.Image:
    """The image with a latent's mask (1, 1, h, w): its ones tinted orange, and thin lines between the cells."""
    rows, columns = cells.shape[2:]
    scale = max(1, 2 * plots.SIDE // image.width)
    size = (image.width * scale, image.height * scale)
    hard = Image.fromarray((cells[0, 0].cpu().numpy() * 255).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    drawn = overlay_mask(image.resize(size, Image.Resampling.LANCZOS), hard)
    lines = Image.new("L", size, 0)
    pen = ImageDraw.Draw(lines)
    for column in range(1, columns):
        pen.line((column * size[0] // columns, 0, column * size[0] // columns, size[1]), fill=90, width=2)
    for row in range(1, rows):
        pen.line((0, row * size[1] // rows, size[0], row * size[1] // rows), fill=90, width=2)
    return Image.composite(Image.new("RGB", size, "black"), drawn, lines)


@plots.style()
def known_changes(original: Image.Image, results: Mapping[str, Image.Image], mask: Image.Image) -> Figure:
    """How far each pixel of the known region, above a straight mask, is from the original in each result."""
    top = (mask.point(lambda level: 255 * (level > 0)).getbbox() or (0, mask.height))[1]
    figure = Figure(figsize=(9, 2.1), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, len(results)), results.items()):
        change = np.sqrt(np.square(difference(original, result)).mean(axis=2))
        axes.imshow(change[:top], cmap=plots.SIGNED, vmin=-MOST, vmax=MOST)
        axes.set_title(f"{name}: {change_outside(original, result, mask):.1f} of 255", fontsize=11, loc="center")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
    return figure


@plots.style()
def remedies(counts: Mapping[str, tuple[int, int]], total: int, joined: int = 0) -> Figure:
    """Dogs whose body matches against dogs that wear nothing, a point for each way to in-paint.

    counts: name -> the two counts, of `total` dogs.
    joined: how many of the points, from the first on, are joined by a line.
    """
    figure = Figure(figsize=(6.4, 3.9))
    axes = figure.subplots()
    points = list(counts.values())
    axes.plot([bare for _, bare in points[:joined]], [matching for matching, _ in points[:joined]], color=plots.PALE)
    for i, (name, (matching, bare)) in enumerate(counts.items()):
        axes.plot(bare, matching, "o" if i < joined else "D", color=plots.BLUE if i < joined else plots.ORANGE, ms=9)
        crowded = any(abs(y - matching) < 1.5 and 0 < bare - x < 3 for y, x in points)  # another point at its left
        offset, side = ((-4, -18), "left") if crowded else ((-10, -4), "right")
        axes.annotate(name, (bare, matching), offset, textcoords="offset points", fontsize=10, ha=side)
    axes.plot(total, total, "*", color=plots.GREEN, ms=14)
    axes.annotate("ideal", (total, total), xytext=(0, 9), textcoords="offset points", ha="center", color=plots.GREEN)
    axes.set(
        xlabel=f"dogs that wear nothing (of {total})",
        ylabel=f"bodies that match their head (of {total})",
        xlim=(min(bare for _, bare in points) - 4, total + 2),
        ylim=(min(matching for matching, _ in points) - 1.5, total + 1.5),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    return figure

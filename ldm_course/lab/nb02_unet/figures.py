"""Figures of notebook 02: the U, the errors of an ablation, and an attention map over an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from ldm_course.lab.nb02_unet.probes import Stage
from ldm_course.lab.shared.plots import AMBER, BLUE, GREEN, INK, ORANGE, PALE, SIDE, SIGNED, SKY, style

Extent = tuple[float, float, float, float]  # left, bottom, width, height

# ---- the U -----------------------------------------------------------------------------------------------------


def draw_u(found: Sequence[Stage]) -> Figure:
    """The UNet's stages in their order: a row per level and one for the middle, the way down left, the way up right.

    The width of a box shows the channels, its height the root of the side. Columns are 1 apart.
    """
    boxes = {stage.name: stage for stage in found}
    blocks = {after.name: before.name for before, after in zip(found, found[1:]) if after.kind == "transformer"}
    places = _places(found)
    sizes = {row: boxes[name].shape[1:] for name, (_, row) in places.items()}
    widest, largest = max(stage.shape[0] for stage in found), sizes[0][0]
    highs = [0.95 * (sizes[row][0] / largest) ** 0.5 for row in range(len(sizes))]
    bottoms = [-sum(high + 1.35 for high in highs[1 : row + 1]) for row in range(len(sizes))]

    def extent(name: str) -> Extent:
        column, row = places[name]
        wide = 0.18 + 0.56 * boxes[name].shape[0] / widest
        return column + 0.5 - wide / 2, bottoms[row], wide, highs[row]

    columns = 1 + max(column for column, _ in places.values())
    figure, axes = _canvas((-2.7, columns + 1.2), (bottoms[-1] - 0.45, 1.6))
    for before, after in zip(places, list(places)[1:]):
        _flow(axes, extent(before), extent(after))
    for name, (column, row) in places.items():
        stage, (x, y, wide, high) = boxes[name], extent(name)
        _box(axes, x, y, wide, high, SKY if stage.kind == "resnet" else PALE)
        if name in blocks.values():
            _box(axes, x, y + 0.66 * high, wide, 0.34 * high, AMBER)
        axes.text(column + 0.5, y - 0.16, f"{stage.shape[0]}", weight="bold", fontsize=9, ha="center", va="center")
        if stage.source is not None:
            reads = f"{stage.own}+\n{stage.skip}"
            axes.text(column + 0.5, y - 0.5, reads, fontsize=8, weight="bold", color=GREEN, ha="center", va="center")
            source = blocks.get(stage.source, stage.source)
            inside = sum(r == row and places[source][0] < c < column for c, r in places.values()) // 2
            _bracket(axes, extent(source), (x, y, wide, high), 0.14 + 0.13 * inside)
    for row, (h, w) in sizes.items():
        words = f"{h} x {w}" + ("\nthe middle" if row == len(sizes) - 1 else "")
        axes.text(-2.6, bottoms[row] + highs[row] / 2, words, fontsize=11, weight="bold", va="center")
    (x, _, _, high), (x_, _, wide, _) = extent(found[0].name), extent(list(places)[-1])
    _arrow(axes, (x - 0.5, high / 2), (x, high / 2))
    _arrow(axes, (x_ + wide, high / 2), (x_ + wide + 0.5, high / 2))
    axes.text(x - 0.55, high / 2, f"x_t\n{found[0].own}", fontsize=10, ha="right", va="center")
    axes.text(x_ + wide + 0.55, high / 2, f"eps\n{found[-1].shape[0]}", fontsize=10, va="center")
    _legend(axes, columns - 1.9, bottoms[-1] - 0.2)
    return figure


def _canvas(x: tuple[float, float], y: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty page without axes, where a unit is as long upwards as to the right."""
    width, height = x[1] - x[0], y[1] - y[0]
    inch = min(0.8, 12.5 / width)
    figure = Figure(figsize=(inch * width, inch * height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=x, ylim=y, aspect="equal")
    axes.axis("off")
    return figure, axes


def _places(found: Sequence[Stage]) -> dict[str, tuple[int, int]]:
    """Column and row of each box, in the order of the stages: stairs down to the middle, and up again."""
    flights = [[found[0].name]]
    for before, stage in zip(found, found[1:-1]):
        into_or_out_of_the_middle = before.kind != "conv" and before.name[:3] != stage.name[:3]
        if before.kind == "up" or stage.kind == "down" or into_or_out_of_the_middle:
            flights.append([])
        if stage.kind in ("down", "resnet"):
            flights[-1].append(stage.name)
    places, x, bottom = {}, 0, len(flights) // 2
    for number, names in enumerate(flights):
        for i, name in enumerate(names):
            places[name] = x + i, bottom - abs(number - bottom)
        x += len(names) - 1
    return places


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    style = {
        "arrowstyle": "-|>,head_width=0.15,head_length=0.3",
        "color": colour,
        "lw": 1,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", end, start, arrowprops=style)


def _flow(axes: Axes, one: Extent, other: Extent) -> None:
    """From a box to the next: to the right in the same row, or down or up to another."""
    (x, y, wide, high), (x_, y_, wide_, high_) = one, other
    if y == y_:
        _arrow(axes, (x + wide, y + high / 2), (x_, y + high / 2))
    elif y > y_:
        _arrow(axes, (x + wide / 2, y - 0.3), (x_ + wide_ / 2, y_ + high_))
    else:
        _arrow(axes, (x + wide / 2, y + high), (x_ + wide_ / 2, y_ - 0.75))


def _bracket(axes: Axes, source: Extent, reader: Extent, above: float) -> None:
    """A skip: out of the top of one box, across, and into the top of another."""
    left, right, top = source[0] + 0.8 * source[2], reader[0] + 0.2 * reader[2], source[1] + source[3]
    axes.plot([left, left, right], [top, top + above, top + above], color=GREEN, lw=1.2)
    _arrow(axes, (right, top + above), (right, top), GREEN)


def _box(axes: Axes, x: float, y: float, wide: float, high: float, colour: str) -> None:
    axes.add_patch(Rectangle((x, y), wide, high, facecolor=colour, edgecolor=INK))


def _legend(axes: Axes, x: float, y: float) -> None:
    names = {"skip": GREEN, "convolution": PALE, "with a transformer": AMBER, "residual block": SKY}
    for i, (words, colour) in enumerate(names.items()):
        if words == "skip":
            axes.plot([x, x + 0.35], [y + 0.1, y + 0.1], color=colour, lw=1.5)
        else:
            _box(axes, x, y + 0.38 * i, 0.35, 0.22, colour)
        axes.text(x + 0.5, y + 0.38 * i + 0.1, words, fontsize=9, va="center")


# ---- what depends on the time ----------------------------------------------------------------------------------


def over_time(values: Tensor, name: str, T: int = 1000) -> Figure:
    """Values (k, n) at k timesteps, evenly from 0 to T, as columns: purple below zero, white at it, orange above."""
    figure = Figure(figsize=(7.5, 2.9))
    axes = figure.subplots()
    most, (_, n) = values.abs().max().item(), values.shape
    image = axes.imshow(
        values.T.numpy(), SIGNED, aspect="auto", interpolation="nearest", vmin=-most, vmax=most, extent=(0, T, n, 0)
    )
    axes.set(xlabel="timestep t", ylabel=name)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, pad=0.02).outline.set_visible(False)
    return figure


# ---- damage ----------------------------------------------------------------------------------------------------


@style()
def damage(rows: Mapping[str, Sequence[tuple[float, float]]], titles: Sequence[str]) -> Figure:
    """The factor by which an error grew: a dot with its 95% interval for each row and column, on a log scale.

    Args:
        rows: name -> per column the mean and half the interval's width.
        titles: of the columns.
    """
    figure = Figure(figsize=(2.6 + 1.7 * len(titles), 0.9 + 0.28 * len(rows)), layout="constrained")
    columns = figure.subplots(1, len(titles), sharey=True, sharex=True, squeeze=False)[0]
    highest = max(float(mean) for values in rows.values() for mean, _ in values)
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000) if tick < 1.5 * highest]
    for axes, title, values in zip(columns, titles, zip(*rows.values())):
        means, halves = (torch.tensor(numbers).tolist() for numbers in zip(*values))
        axes.axvline(1, color=BLUE, lw=1)
        axes.errorbar(means, range(len(means)), xerr=halves, fmt="o", color=ORANGE, markersize=5, capsize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines.left.set_visible(False)
        axes.tick_params(left=False)
    columns[0].set_yticks(range(len(rows)), rows)
    columns[0].invert_yaxis()
    figure.supxlabel("times the error with nothing missing", fontsize=10)
    return figure


# ---- attention -------------------------------------------------------------------------------------------------


def overlay(image: Image.Image, values: Tensor, highest: float) -> Image.Image:
    """A map of values (h, w) from 0 to `highest`, in cividis, over the image in grey."""
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE)), dtype=float)[..., None] / 255
    heat = Image.fromarray(values.detach().float().cpu().numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    colours = matplotlib.colormaps["cividis"](np.clip(np.asarray(heat) / highest, 0, 1))[..., :3]
    return Image.fromarray((255 * (0.7 * colours + 0.3 * grey)).round().astype(np.uint8))

"""The figures of the notebook on flows: dots and their paths, spacings, and what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from ldm_course.evaluate.metrics import Share
from ldm_course.lab.shared.plots import AMBER, BLUE, GREEN, INK, ORANGE, PINK, SKY, style

REACH = 2.6  # the plane is drawn from -REACH to REACH
WHEEL = LinearSegmentedColormap.from_list("wheel", [BLUE, GREEN, AMBER, ORANGE, PINK, BLUE])
BEHIND = 3000  # dots of a drawing in grey
SPACINGS = {"even in s": ORANGE, "even in s, k = 2": AMBER, "even in s, k = 3": PINK, "even in t": BLUE}
MEASURED = Path(__file__).with_name("measured.json")  # by benchmarks/flow.py; docs/flow.md has the same as tables

# ---- the plane -------------------------------------------------------------------------------------------------


def wheel(x: Tensor) -> list[str]:
    """A colour for each point (n, 2), by its direction from the middle."""
    return [to_hex(WHEEL((math.atan2(b, a) / math.tau) % 1)) for a, b in x.tolist()]


def _pixels(xy: Tensor, size: int) -> list[tuple[float, float]]:
    """Places (n, 2) of the plane on an image of this size."""
    return [((x / REACH + 1) / 2 * size, (1 - y / REACH) / 2 * size) for x, y in xy.tolist()]


def board(
    dots: Tensor,
    colours: Sequence[str] | str = INK,
    lines: Tensor | None = None,
    radius: float = 2.0,
    side: int = 384,
    behind: Tensor | None = None,
) -> Image.Image:
    """Dots (n, 2) on the plane, and the lines (steps, n, 2) that led to them, with others in grey behind them."""
    size = 2 * side  # drawn at twice the size, and shrunk at the end, so that edges are smooth
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    each = [colours] * len(dots) if isinstance(colours, str) else list(colours)
    for x, y in _pixels(behind, size) if behind is not None else []:
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill="#dddddd")
    if lines is not None:
        for k, colour in enumerate(each):
            pen.line(_pixels(lines[:, k], size), fill=colour, width=3, joint="curve")
            x, y = _pixels(lines[:1, k], size)[0]
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), outline=colour, width=2)
    r = 2 * radius
    for (x, y), colour in zip(_pixels(dots, size), each):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    pen.rectangle((0, 0, size - 1, size - 1), outline="#cccccc", width=2)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def way(path: Tensor, fine: Tensor, behind: Tensor, side: int = 384) -> Image.Image:
    """The walk (steps, 2) of one dot, before the exact walk (m, 2) and the straight line to its end, dashed."""
    size = 2 * side
    image = board(behind[:0], behind=behind, side=size)
    pen = ImageDraw.Draw(image)
    count = 2 * max(2, round((fine[-1] - fine[0]).norm().item() / 0.14))  # dashes and gaps of one length
    dashes = _pixels(torch.lerp(fine[0], fine[-1], torch.linspace(0, 1, count)[:, None]), size)
    for one, other in zip(dashes[::2], dashes[1::2]):
        pen.line((*one, *other), fill="#777777", width=4)
    pen.line(_pixels(fine, size), fill=SKY, width=11, joint="curve")
    places = _pixels(path, size)
    pen.line(places, fill=ORANGE, width=6, joint="curve")
    for (x, y), r in zip(places, (12, *[8] * (len(places) - 2), 12)):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=ORANGE)
    x, y = places[0]
    pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill="white")
    return image.resize((side, side), Image.Resampling.LANCZOS)


def film(paths: Sequence[Tensor], colours: Sequence[str], frames: int = 18, side: int = 320) -> list[Image.Image]:
    """The frames of an animation of paths (steps, n, 2), side by side, each from its start to its end."""
    drawn = []
    for i in range(frames):
        share, boards = i / (frames - 1), []
        for path in paths:
            place = share * (len(path) - 1)
            low = min(int(place), len(path) - 2)
            boards.append(board(path[low].lerp(path[low + 1], place - low), colours, side=side))
        frame = Image.new("RGB", (len(paths) * (side + 16) - 16, side), "white")
        for k, image in enumerate(boards):
            frame.paste(image, (k * (side + 16), 0))
        drawn.append(frame)
    palette = drawn[-1].quantize(48, Image.Quantize.MAXCOVERAGE)  # few colours make a small file
    shades = palette.getpalette() or []
    palette.putpalette([255 if shade > 245 else shade for shade in shades])  # the paper stays white
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB") for frame in drawn]


@style()
def arrivals(errors: Mapping[str, Sequence[float]], calls: Sequence[int]) -> Figure:
    """How far the dots end from where they should, over the calls of the network."""
    figure = Figure(figsize=(6, 3.0), layout="constrained")
    axes = figure.subplots()
    for (name, values), marker in zip(errors.items(), "os^"):
        axes.plot(calls, values, marker + "-", label=name, markersize=5)
    axes.set(xscale="log", yscale="log", xlabel="calls of the network", ylabel="error of the end")
    axes.set_xticks(calls, [str(count) for count in calls])
    axes.minorticks_off()
    axes.legend()
    return figure


# ---- levels ----------------------------------------------------------------------------------------------------


@style()
def spacings(levels: Mapping[str, Sequence[float]]) -> Figure:
    """The log SNR of each walk's levels, as dots on one line each, from noise on the left to data on the right."""
    figure = Figure(figsize=(7, 0.5 + 0.42 * len(levels)), layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(levels.items()):
        colour = SPACINGS[name]
        axes.plot([min(values), max(values)], [-i, -i], color=colour, linewidth=1, alpha=0.4)
        axes.plot(values, [-i] * len(values), "o", color=colour, markersize=7)
    axes.set_yticks([-i for i in range(len(levels))], list(levels))
    axes.set(xlabel="log SNR:  noise  →  data", ylim=(0.6 - len(levels), 0.6))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


# ---- what was measured -----------------------------------------------------------------------------------------


def measured(what: str) -> list[dict]:
    """The rows of benchmarks/flow.py: of its "spacing", "velocity", "before reflow" or "reflow"."""
    return [row for row in json.loads(MEASURED.read_text(encoding="utf-8")) if row["what"] == what]


def _shares(axes: Axes, x: Sequence[float], shares: Sequence[Share], label: str, colour: str, marker: str) -> None:
    """A curve of shares in percent, with their 95% intervals."""
    values = np.array([share.right / share.count for share in shares])
    ends = np.array([share.interval() for share in shares]).reshape(-1, 2).T
    errors = np.maximum(0, [values - ends[0], ends[1] - values])  # rounding may put 1 outside its interval
    axes.errorbar(x, 100 * values, 100 * errors, fmt=marker + "-", color=colour, label=label, markersize=5, capsize=3)


@style()
def spacing_shares(steps: int = 5, scales: Sequence[float] = (3, 4, 5, 7.5)) -> Figure:
    """The share of images with everything right, a panel for each guidance scale and a bar for each spacing."""
    names = {
        "even in s": "even in s",
        "even in t": "even in t",
        "even in s, k = 3": "even in s, shifted",
    }  # -> the file's
    figure = Figure(figsize=(8.4, 1.9), layout="constrained")
    every = figure.subplots(1, len(scales), sharex=True, sharey=True)
    for axes, scale in zip(every, scales):
        rows = {r["spacing"]: r for r in measured("spacing") if (r["steps"], r["guidance"]) == (steps, scale)}
        for i, (name, key) in enumerate(names.items()):
            share = Share(*rows[key]["share"])
            value, (low, high) = share.right / share.count, share.interval()
            axes.barh(-i, 100 * value, 0.72, color=SPACINGS[name])
            axes.plot([100 * low, 100 * high], [-i, -i], color=INK, linewidth=1.2)
            place, ink = (4.0, "white") if value > 0.3 else (100 * high + 4, INK)
            axes.text(place, -i, f"{value:.0%}", color=ink, va="center")
        axes.set(title=f"guidance {scale:g}", xlim=(0, 104), xticks=[0, 50, 100])
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    every[0].set_yticks([-i for i in range(len(names))], list(names))
    figure.supxlabel("everything right, %", fontsize="medium")
    return figure


@style()
def few_steps() -> Figure:
    """The share of images with everything right in 1, 2 and 4 steps, before reflow and after it."""
    before, after = measured("before reflow"), measured("reflow")
    last = max(row["minutes"] for row in after)
    curves = {
        "before, guidance 3": [row for row in before if row["guidance"] == 3],
        "before, guidance 1": [row for row in before if row["guidance"] == 1],
        "after reflow": [row for row in after if row["minutes"] == last],
    }
    figure = Figure(figsize=(6, 3.0), layout="constrained")
    axes = figure.subplots()
    for (name, rows), colour, marker in zip(curves.items(), (PINK, BLUE, ORANGE), "so^"):
        counts = [row["steps"] for row in rows]
        places = [float(i) for i in range(len(counts))]
        _shares(axes, places, [Share(*row["share"]) for row in rows], name, colour, marker)
    axes.set_xticks(range(len(counts)), [f"{count} step{'s' * (count > 1)}" for count in counts])
    axes.set(ylabel="everything right, %", ylim=(0, 104))
    axes.legend(loc="lower right")
    return figure

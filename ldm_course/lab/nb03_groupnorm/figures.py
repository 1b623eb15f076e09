"""The figures of notebook 03: the islands with dots, paths and arrows, the schedules, and the cubes of the norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from PIL import Image, ImageDraw
from torch import Tensor

from ldm_course.lab.nb03_groupnorm import toy
from ldm_course.lab.shared.plots import BLUE, GREEN, INK, ORANGE, PALE, PINK, style

COLOURS = (BLUE, ORANGE, GREEN)  # of the islands: dog, cat, rabbit
LAND = "#d9d9d9"
REACH = 2.75  # the islands are drawn from -REACH to REACH

# ---- the islands -----------------------------------------------------------------------------------------------


def board(
    points: Tensor,
    dots: Tensor | None = None,
    colours: Sequence[str] | str = INK,
    lines: Tensor | None = None,
    arrows: Tensor | None = None,
    side: int = 480,
    radius: float = 3.0,
) -> Image.Image:
    """The islands in grey, with dots (n, 2), the lines (steps, n, 2) that led to them, and arrows to (n, 2)."""
    size = 2 * side  # drawn at twice the size, and shrunk at the end, so that edges are smooth
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)

    def pixels(xy: Tensor) -> list[tuple[float, float]]:
        place = (xy * torch.tensor([1.0, -1.0], dtype=torch.float32, device="cpu") / REACH + 1) / 2 * size
        return [(x, y) for x, y in place.tolist()]

    def disc(centre: tuple[float, float], r: float, colour: str) -> None:
        pen.ellipse((centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r), fill=colour)

    for place in pixels(points):
        disc(place, 3.5, LAND)
    count = len(dots) if dots is not None else 0
    each = [colours] * count if isinstance(colours, str) else list(colours)
    if lines is not None:
        for k in range(count):
            pen.line(pixels(lines[:, k]), fill=each[k], width=round(radius), joint="curve")
    if dots is not None:
        for place, colour in zip(pixels(dots), each):
            disc(place, 2 * radius, colour)
        if arrows is not None:
            for begin, end, colour in zip(pixels(dots), pixels(arrows), each):
                _arrow(pen, begin, end, colour)
    pen.rectangle((0, 0, size - 1, size - 1), outline="#cccccc", width=2)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def _arrow(pen: ImageDraw.ImageDraw, begin: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    along = np.subtract(end, begin)
    length = float(np.hypot(*along))
    if length < 1:
        return
    along /= length
    head = min(14.0, 0.5 * length)
    back, across = np.array(end) - head * along, 0.45 * head * np.array([-along[1], along[0]])
    pen.line([begin, tuple(back)], fill=colour, width=3)
    pen.polygon([end, tuple(back + across), tuple(back - across)], fill=colour)


def destinies(ends: Tensor, points: Tensor, which: Tensor) -> list[str]:
    """The colour of the island on which each of the ends (n, 2) lies, or to which it is nearest."""
    return [COLOURS[i] for i in toy.landed(ends, points, which).tolist()]


def flow(path: Tensor, points: Tensor, which: Tensor, side: int = 400) -> list[Image.Image]:
    """The frames of an animation: all dots of a path (steps, n, 2), in the colours of where they end."""
    colours = destinies(path[-1], points, which)
    lands = [points[:0]] * (len(path) - 1) + [points]  # the islands come into sight at the end
    return [board(land, dots, colours, side=side, radius=2.3) for land, dots in zip(lands, path)]


@style()
def guesses(panels: Sequence[tuple[int, Tensor, Tensor]], points: Tensor) -> Figure:
    """For each (t, x_t, x0_hat) the noisy dots, and an arrow from each to its best guess."""
    figure = Figure(figsize=(2.75 * len(panels), 3.0), layout="constrained")
    for axes, (t, x_t, x0_hat) in zip(figure.subplots(1, len(panels)), panels):
        _land(axes, points)
        along = x0_hat - x_t
        axes.quiver(
            x_t[:, 0],
            x_t[:, 1],
            along[:, 0],
            along[:, 1],
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.005,
            color=PALE,
            zorder=2,
        )
        axes.scatter(x_t[:, 0], x_t[:, 1], s=9, color=BLUE, zorder=3, label="x_t")
        axes.scatter(x0_hat[:, 0], x0_hat[:, 1], s=13, color=ORANGE, zorder=4, label="x0_hat")
        axes.set_title(f"t = {t}")
    figure.axes[0].legend(loc="lower left", handletextpad=0.1, borderpad=0)
    return figure


@style()
def paths(
    titled: Mapping[str, Tensor], points: Tensor, which: Tensor, ends: Tensor | None = None, markers: bool = False
) -> Figure:
    """Paths (steps, n, 2) by title, each in the colour of the island where it ends; with a dot at each step.

    ends: (n, 2), whose islands give the colours in place of each path's own end.
    """
    figure = Figure(figsize=(2.75 * len(titled), 3.0), layout="constrained")
    for axes, (title, path) in zip(np.atleast_1d(figure.subplots(1, len(titled))), titled.items()):
        _land(axes, points)
        colours = destinies(path[-1] if ends is None else ends, points, which)
        for k, colour in enumerate(colours):
            axes.plot(path[:, k, 0], path[:, k, 1], color=colour, linewidth=0.8, alpha=0.65)
        if markers:
            for k, colour in enumerate(colours):
                axes.plot(path[1:-1, k, 0], path[1:-1, k, 1], ".", color=colour, markersize=3)
        axes.scatter(
            path[0, :, 0], path[0, :, 1], s=8, facecolors="white", edgecolors=colours, linewidths=0.8, zorder=3
        )
        axes.scatter(path[-1, :, 0], path[-1, :, 1], s=14, color=colours, zorder=4)
        axes.set_title(title)
    return figure


@style()
def score_field(levels: Sequence[tuple[int, float]], points: Tensor) -> Figure:
    """For each (t, alpha_bar) the density of x_t, dark where it is high, and arrows along the score."""
    figure = Figure(figsize=(2.75 * len(levels), 3.0), layout="constrained")
    fine, coarse = (torch.linspace(-2.8, 2.8, n, dtype=torch.float32, device="cpu") for n in (90, 13))
    for axes, (t, alpha_bar) in zip(figure.subplots(1, len(levels)), levels):
        grid = torch.cartesian_prod(fine, fine)
        squared = (grid[:, None] - sqrt(alpha_bar) * points).square().sum(dim=2)
        density = (-squared / (2 * (1 - alpha_bar))).exp().mean(dim=1).view(len(fine), -1).T
        axes.contourf(fine, fine, density, levels=8, cmap="Blues", vmax=1.5 * float(density.max()))
        x = torch.cartesian_prod(coarse, coarse)
        score = (sqrt(alpha_bar) * toy.best_guess(x, alpha_bar, points) - x) / (1 - alpha_bar)
        longest = float(score.norm(dim=1).quantile(0.9))
        score = score * (longest / score.norm(dim=1).clamp_min(longest))[:, None]  # far out they would cover all
        axes.quiver(
            x[:, 0],
            x[:, 1],
            score[:, 0],
            score[:, 1],
            color=ORANGE,
            angles="xy",
            scale_units="xy",
            scale=longest / 0.38,
            width=0.006,
        )
        axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[], title=f"t = {t}")
        axes.spines[:].set_visible(False)
    return figure


def _land(axes: Axes, points: Tensor) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=2, color=LAND, linewidths=0, zorder=0)
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#cccccc")


# ---- the schedule and the samplers -----------------------------------------------------------------------------


@style()
def schedules(alpha_bars: Mapping[str, Tensor]) -> Figure:
    """Named schedules (T,): left the weight of the signal over t, right the logarithm of the SNR."""
    figure = Figure(figsize=(9.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, values), line in zip(alpha_bars.items(), ("-", "--", ":")):
        left.plot(values.sqrt(), line, label=name)
        snr = values / (1 - values)
        right.plot(np.flatnonzero(snr > 0), snr[snr > 0].log(), line)
    left.set(title="weight of the signal", xlabel="timestep t", ylim=(0, 1.03))
    right.set(title="log SNR", xlabel="timestep t", ylim=(-11, 11))
    right.axhline(0, color=PALE, linewidth=0.8, zorder=0)
    right.text(5, -0.4, "as much signal as noise", fontsize=8.5, color="#777777", va="top")
    left.legend(loc="lower left")
    return figure


@style()
def spacings(timesteps: Mapping[str, Sequence[int]], last: int = 999) -> Figure:
    """Which timesteps are visited: a row of dots for each name."""
    figure = Figure(figsize=(8.4, 0.42 * len(timesteps) + 0.7), layout="constrained")
    axes = figure.subplots()
    for row, visited in enumerate(timesteps.values()):
        axes.plot([0, last], [row, row], color="#e5e5e5", linewidth=1, zorder=0)
        axes.plot(visited, [row] * len(visited), "o", color=(BLUE, ORANGE, GREEN)[row % 3], markersize=7)
        for t in visited:
            axes.text(t, row - 0.24, str(t), ha="center", fontsize=8, color="#555555")
    axes.set_yticks(range(len(timesteps)), list(timesteps))
    axes.set(xlim=(last + 25, -25), ylim=(len(timesteps) - 0.6, -0.6), xticks=[])
    axes.set_xlabel("noise  →  clean")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def normal_density(x: np.ndarray, mean: float, variance: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / sqrt(2 * np.pi * variance)


@style()
def posterior(samples: Tensor, prior: tuple[float, float], formula: tuple[float, float]) -> Figure:
    """A histogram of samples of x_prev, its prior density, and the posterior's, (mean, variance) each."""
    figure = Figure(figsize=(6.6, 2.8), layout="constrained")
    axes = figure.subplots()
    std = sqrt(prior[1])
    x = np.linspace(prior[0] - 3.5 * std, prior[0] + 3.5 * std, 400)
    axes.hist(samples.numpy(), bins=60, density=True, color=PALE, label="values that went on to x_t = 2")
    axes.plot(x, normal_density(x, *prior), "--", color=ORANGE, label="all values: q(x_prev | x_0)")
    axes.plot(x, normal_density(x, *formula), color=BLUE, label="your step: q(x_prev | x_t, x_0)")
    axes.set(xlabel="x_prev", yticks=[], ylim=(0, 1.45 * normal_density(np.array(0.0), 0.0, formula[1])))
    axes.spines.left.set_visible(False)
    axes.legend(loc="upper left")
    return figure


@style()
def orders(steps: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Figure:
    """The errors of some solvers over their number of steps, both on logarithmic axes."""
    figure = Figure(figsize=(6.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), mark in zip(errors.items(), ("o-", "s-", "^-")):
        axes.plot(steps, values, mark, markersize=5)
        axes.text(steps[-1] * 1.08, values[-1], name, color=axes.lines[-1].get_color(), va="center")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="error", xlim=(None, steps[-1] * 2.4))
    axes.set_xticks(steps, map(str, steps))
    axes.minorticks_off()
    return figure


# ---- the norms -------------------------------------------------------------------------------------------------

N, C, HW = 4, 6, 6  # of a cube
CUBES = {  # norm -> the images, channels and positions that share one mean
    "BatchNorm": (range(N), range(3, 4), range(HW)),
    "LayerNorm": (range(1), range(C), range(HW)),
    "InstanceNorm": (range(1), range(3, 4), range(HW)),
    "GroupNorm": (range(1), range(3, 6), range(HW)),
}


@style()
def cubes() -> Figure:
    """A batch of feature maps as a cube, once for each norm; blue is what shares one mean and one deviation."""
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    for axes, (name, (images, channels, positions)) in zip(figure.subplots(1, len(CUBES)), CUBES.items()):
        for c in range(C):
            for p in range(HW):
                inside = 0 in images and c in channels and p in positions
                _face(axes, [(c, p, 0), (c + 1, p, 0), (c + 1, p + 1, 0), (c, p + 1, 0)], inside, 1.0)
            for n in range(N):
                inside = n in images and c in channels and HW - 1 in positions
                _face(axes, [(c, HW, n), (c + 1, HW, n), (c + 1, HW, n + 1), (c, HW, n + 1)], inside, 0.82)
        for n in range(N):
            for p in range(HW):
                inside = n in images and C - 1 in channels and p in positions
                _face(axes, [(C, p, n), (C, p, n + 1), (C, p + 1, n + 1), (C, p + 1, n)], inside, 0.66)
        axes.text(C / 2, -0.3, "C channels", ha="center", va="top", fontsize=9, color=INK)
        axes.text(-0.3, HW / 2, "H x W positions", ha="right", va="center", rotation=90, fontsize=9, color=INK)
        axes.text(C + 1.3, 0.55, "N images", ha="left", va="center", rotation=33, fontsize=9, color=INK)
        axes.set_title(name, loc="center", fontsize=11, fontweight="bold" if name == "GroupNorm" else "normal")
        axes.set(xlim=(-1.3, 9), ylim=(-1.2, 8.4), aspect="equal")
        axes.set_axis_off()
    return figure


def _face(axes: Axes, corners: Sequence[tuple[int, int, int]], inside: bool, light: float) -> None:
    flat = [(c + 0.6 * n, p + 0.4 * n) for c, p, n in corners]
    rgb = np.array([0.0, 0.447, 0.698]) if inside else np.array([0.93, 0.93, 0.93])
    shade = rgb * light + (0.25 * (1 - light) if inside else 0.35 * (1 - light))
    axes.add_patch(Polygon(flat, facecolor=shade.clip(0, 1), edgecolor="white", linewidth=0.8))


@style()
def batch_errors(sizes: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Figure:
    """How far BatchNorm's values are off, by the size of the batch, and GroupNorm's, which are never off."""
    figure = Figure(figsize=(6.6, 3.0), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour, mark in zip(errors.items(), (ORANGE, PINK), ("o-", "s--")):
        axes.plot(sizes, values, mark, color=colour, markersize=5, label=name)
    axes.plot(sizes, [0] * len(sizes), color=BLUE, label="GroupNorm")
    axes.set(xscale="log", xlabel="images in the batch", ylabel="error of a normalised value", ylim=(-0.02, None))
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    axes.legend()
    return figure

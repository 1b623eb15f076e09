"""What notebook 05 draws: the strength sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ldm_course.evaluate.metrics import Share
from ldm_course.lab.nb05_img2img.experiment import StrengthSweep
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.measure import interval

NO_INPUT = 1.18  # where text-to-image stands on the axis of strengths


@plots.style()
def plot_strength(strengths: Sequence[float | None], sweep: StrengthSweep) -> Figure:
    """The measurements of `sweep_strength` against strength, with 95% intervals; None stands at the right."""
    x = np.array([NO_INPUT if strength is None else strength for strength in strengths])
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _plot_means(left, x, sweep.distance, "distance to the input", plots.INK)
    _plot_means(right, x - 0.008, sweep.kept, "colour and action kept", plots.BLUE)
    _plot_shares(right, x, sweep.accessory, "the glasses are there", plots.ORANGE, "s--")
    _plot_shares(right, x + 0.008, sweep.place, "the new place is there", plots.GREEN, "^:")

    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    labels = [f"{tick:g}" for tick in ticks]
    if None in strengths:
        ticks, labels = [*ticks, NO_INPUT], [*labels, "no\ninput"]
    for axes in (left, right):
        axes.set_xticks(ticks, labels)
        axes.set_xlabel("strength", x=0.45)
    left.set(ylabel="distance to the input", ylim=(0, None))
    right.set(ylabel="share", ylim=(-0.03, 1.03))
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def _plot_means(axes: Axes, x: np.ndarray, values: Tensor, name: str, colour: str) -> None:
    """Means of (s, n) values with Student's intervals."""
    middle, half = interval(values)
    _plot_points(axes, x, middle, torch.stack([half, half]), name, colour, "o-")


def _plot_shares(axes: Axes, x: np.ndarray, values: Tensor, name: str, colour: str, style: str) -> None:
    """Shares of (s, n) zeros and ones with Wilson's intervals."""
    shares = [Share(int(row.sum()), len(row)).interval() for row in values]
    low, high = torch.tensor(shares, dtype=torch.float32, device="cpu").T
    middle = values.mean(dim=1)
    _plot_points(axes, x, middle, torch.stack([middle - low, high - middle]).clamp_min(0), name, colour, style)


def _plot_points(axes: Axes, x: np.ndarray, y: Tensor, errors: Tensor, name: str, colour: str, style: str) -> None:
    """Points with intervals; a line joins those that have a strength."""
    joined = x < NO_INPUT - 0.1
    for part, line in ((joined, style), (~joined, style[0])):
        axes.errorbar(
            x[part],
            y.numpy()[part],
            errors.numpy()[:, part],
            fmt=line,
            color=colour,
            markersize=4,
            capsize=2,
            linewidth=1.4,
            elinewidth=0.9,
            label=name if line == style else None,
        )

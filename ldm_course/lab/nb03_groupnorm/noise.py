"""The second half of notebook 03: figures of noise levels and samplers, and the pages of two widgets."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ldm_course.lab.shared.measure import interval
from ldm_course.lab.shared.plots import BLUE, GREEN, INK, ORANGE, PALE, PINK, decoded, grid, latent_image, style
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import State
from ldm_course.schedule import NoiseSchedule

STYLES = {  # colours, and marks that differ in print
    "ddpm": (GREEN, "^:"),
    "ddim": (BLUE, "o-"),
    "euler": (PINK, "x--"),
    "dpm++": (ORANGE, "s-"),
}


def normal_density(x: np.ndarray, mean: float, variance: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


# ---- pages of the widgets --------------------------------------------------------------------------------------


def timestep_page(model: LatentDiffusion, x0: Tensor, noise: Tensor, t: int) -> Image.Image:
    """A latent (1, c, h, w) with the noise of timestep t: the latent, the decoded image, and the two weights."""
    x_t = model.schedule.add_noise(x0, noise, t)
    panels = [latent_image(x_t[0]), decoded(model, x_t), weights(model.schedule, t)]
    return grid([panels], [f"x_t at t = {t}", "decoded", "weights"])


def timestep_sheet(model: LatentDiffusion, x0: Tensor, noise: Tensor, timesteps: Sequence[int]) -> Image.Image:
    """The same for several timesteps, one in each column."""
    x_ts = [model.schedule.add_noise(x0, noise, t) for t in timesteps]
    columns = [
        (latent_image(x_t[0]), decoded(model, x_t), weights(model.schedule, t)) for x_t, t in zip(x_ts, timesteps)
    ]
    return grid(list(zip(*columns)), [f"t = {t}" for t in timesteps], ["x_t", "decoded", "weights"], side=192)


def weights(schedule: NoiseSchedule, t: int) -> Image.Image:
    """The weights of signal and noise at timestep t, as two bars."""
    a = schedule.alpha_bar(t)
    figure = Figure(figsize=(2.67, 2.67))
    axes = figure.subplots()
    for row, (name, weight, colour) in enumerate(
        (("signal", math.sqrt(a), BLUE), ("noise", math.sqrt(1 - a), ORANGE))
    ):
        axes.barh(row, weight, color=colour, height=0.55)
        axes.text(0, row - 0.4, f"{name}  {weight:.3f}", fontsize=20, color=INK)
    axes.set(xlim=(0, 1), ylim=(1.5, -0.8))
    axes.set_axis_off()
    figure.subplots_adjust(0.06, 0.06, 0.94, 0.94)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return Image.open(buffer).convert("RGB")


def strength_page(image: Image.Image, start: Image.Image, result: Image.Image, strength: float) -> Image.Image:
    """Image-to-image at one strength: the image, the noisy start decoded, and the result."""
    return grid([[image, start, result]], ["image", f"start, strength {strength:g}", "result"])


# ---- figures ---------------------------------------------------------------------------------------------------


@style()
def posterior(samples: Tensor, prior: tuple[float, float], formula: tuple[float, float]) -> Figure:
    """A histogram of samples of x_prev, its prior density, and the posterior's, (mean, variance) each."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.subplots()
    std = math.sqrt(prior[1])
    x = np.linspace(prior[0] - 6 * std, prior[0] + 4 * std, 400)  # with room for the legend
    axes.hist(samples.numpy(), bins=60, density=True, color=PALE, label="drawn, where x_t came out right")
    axes.plot(x, normal_density(x, *prior), "--", color=ORANGE, label="before: q(x_prev | x_0)")
    axes.plot(x, normal_density(x, *formula), color=BLUE, label="formula: q(x_prev | x_t, x_0)")
    axes.set(xlabel="x_prev", yticks=[])
    axes.spines.left.set_visible(False)
    axes.legend(loc="upper left")
    return figure


@style()
def paths(fine: Sequence[State], coarse: Sequence[State], cells: Sequence[int]) -> Figure:
    """The paths of a few latent values, in few steps on top of many: left x_t over t, right y over sigma."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for states, marks in ((fine, {"linewidth": 1.2}), (coarse, {"linestyle": "", "marker": "o", "markersize": 4})):
        t = np.array([state.t for state in states])
        a = np.array([state.alpha_bar for state in states])
        x = torch.stack([state.x_t.flatten()[list(cells)] for state in states]).cpu().numpy()  # (steps, cells)
        for i in range(len(cells)):
            colour = (BLUE, ORANGE, GREEN, PINK, INK)[i % 5]
            left.plot(t, x[:, i], color=colour, **marks)
            right.plot(np.sqrt(1 / a - 1), x[:, i] / np.sqrt(a), color=colour, **marks)
    left.set(xlabel="t", ylabel="x_t", xlim=(1020, -20))
    right.set(xlabel="σ", ylabel="y", xlim=(15, -0.4))
    return figure


@style()
def quality(steps: Sequence[int], distance: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Figure:
    """Quality by number of steps, sampler -> (steps, images): distance to the reference, and right attributes.

    With 95% intervals; the distance's mean and interval are of its logarithm.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, other = figure.subplots(1, 2)
    for axes, values in ((left, distance), (other, right)):
        for i, (name, (colour, mark)) in enumerate(STYLES.items()):
            x = np.array(steps) * 1.04 ** (i - 1.5)  # side by side, so that no interval hides another
            if axes is left:  # the mean of the logarithms, or one distant image would dominate
                mean, half = interval(values[name].log())
                low, middle, high = ((mean + side * half).exp() for side in (-1, 0, 1))
            else:
                middle, half = interval(values[name])
                low, high = middle - half, middle + half
            errors = torch.stack([middle - low, high - middle])
            axes.errorbar(
                x, middle.numpy(), errors.numpy(), fmt=mark, color=colour, markersize=4, linewidth=1.2, label=name
            )
        axes.set_xscale("log")
        axes.set_xticks(steps, map(str, steps))
        axes.minorticks_off()
        axes.set_xlabel("steps")
    ticks = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    left.set(yscale="log", ylabel="distance to the reference")
    left.set_yticks(ticks, map(str, ticks))
    left.minorticks_off()
    other.set(ylabel="attributes that the classifier finds", ylim=(0, 1.04))
    left.legend()
    return figure

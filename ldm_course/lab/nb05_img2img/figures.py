"""What notebook 05 draws: where the loop starts, and what each strength changes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from ldm_course.lab.shared.plots import BLUE, GREEN, INK, ORANGE, PALE, style
from ldm_course.schedule import NoiseSchedule


@style()
def entry(schedule: NoiseSchedule, timesteps: Sequence[int], steps_run: int) -> Figure:
    """The way of the loop from noise to the image, and the jump from the image to the step where it begins."""
    noise = (1 - schedule.alpha_bars).sqrt()
    run, skipped = timesteps[-steps_run:], timesteps[:-steps_run]
    figure = Figure(figsize=(9, 3.1))
    axes = figure.subplots()
    axes.plot(noise, color=PALE, linewidth=1.2, zorder=1)
    axes.plot(skipped, noise[list(skipped)], "o", markerfacecolor="white", color="#999999", markersize=7)
    axes.plot(run, noise[list(run)], "o", color=ORANGE, markersize=8)
    axes.plot([-30], [0.02], "s", color=BLUE, markersize=11, clip_on=False)
    height = float(noise[run[0]])
    jump = FancyArrowPatch(
        (-30, 0.05),
        (run[0] - 6, height - 0.05),
        connectionstyle="arc3,rad=-0.16",
        arrowstyle="-|>",
        mutation_scale=16,
        color=BLUE,
        linewidth=1.8,
    )
    axes.add_patch(jump)
    axes.text(480, 0.3, "1  add noise, in one jump", color=BLUE, ha="center", fontsize=11)
    axes.text(250, 0.93, f"2  run the last {len(run)} steps", color=ORANGE, ha="center", fontsize=11)
    if skipped:
        middle = (skipped[0] + skipped[-1]) / 2
        axes.text(middle, 1.06, f"skipped: {len(skipped)} steps", color="#777777", ha="center", fontsize=11)
    axes.text(-52, 0.13, "the clean\nlatent", color=BLUE, ha="left", va="bottom", fontsize=10)
    axes.text(run[0] - 4, height + 0.06, f"t = {run[0]}", color=INK, fontsize=11)
    axes.set(xlim=(1000, -110), ylim=(0, 1.05), xlabel="timestep t", ylabel="weight of the noise")
    return figure


@style()
def spectrum(signal: Sequence[float], noise: dict[float, float]) -> Figure:
    """How strong waves of each length are in images, over lines for the noise of each strength.

    Args:
        signal: the power of the waves of which 0, 1, 2, ... fit across an image.
        noise: strength -> the power of its noise, the same for all waves.
    """
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(signal, "o-", color=BLUE, linewidth=2, zorder=3)
    axes.annotate("the images", (1, signal[1]), (8, 4), textcoords="offset points", color=BLUE, fontsize=11)
    for strength, level in noise.items():
        axes.axhline(level, color=ORANGE, linewidth=1.2, linestyle="--")
        axes.text(
            len(signal) - 1, level * 1.1, f"noise at strength {strength}", color=ORANGE, ha="right", fontsize=10
        )
    axes.set(yscale="log", ylabel="power", xticks=range(len(signal)))
    axes.set_xlabel("waves across the image: 0 is the average, on the right are the smallest details")
    return figure


@style()
def plot_strength(strengths: Sequence[float], distance: Sequence[float], counts: dict[str, Sequence[int]]) -> Figure:
    """Distance to the input, and how many images have what `counts` names, each against strength."""
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(strengths, distance, "o-", color=INK)
    left.set(ylim=(0, None), title="distance to the input")
    for (name, values), colour, marker in zip(counts.items(), (ORANGE, GREEN, BLUE), "os^"):
        right.plot(strengths, values, f"{marker}-", color=colour, label=name)
    right.set(ylim=(-0.4, None), title="how many of the 12 images have")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in (left, right):
        axes.set(xlabel="strength", xticks=strengths)
    return figure

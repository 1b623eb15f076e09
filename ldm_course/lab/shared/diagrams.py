"""Diagrams of the three tasks, with the model's own shapes. Notebooks 04, 05 and 06."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ldm_course.errors import check_choice
from ldm_course.lab.shared.plots import BLUE, INK, ORANGE
from ldm_course.model import LatentDiffusion

TASKS = ("txt2img", "img2img", "inpaint")
TINTS = {INK: "#ffffff", BLUE: "#dcebf5", ORANGE: "#fbe7db"}
HEIGHT = 0.62  # of a box; a unit is an inch
Box = tuple[float, float, float, float]  # left, bottom, width, height


def flow(model: LatentDiffusion, task: str) -> Figure:
    """One task from the prompt to the image: networks in blue, the loop in orange, and the shapes in between.

    Args:
        task: "txt2img", "img2img" or "inpaint".

    Raises InputError for another task.
    """
    check_choice("task", task, TASKS)
    side, pixels = model.unet.config.sample_size, model.native_size
    latent = f"({model.vae.config.latent_channels}, {side}, {side})"
    image = f"({model.vae.config.in_channels}, {pixels}, {pixels})"
    context = f"({model.tokenizer.model_max_length}, {model.unet.config.cross_attention_dim})"

    figure = Figure(figsize=(9.6, 2.3 if task == "txt2img" else 3.3))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(0, 9.6), ylim=(0 if task != "txt2img" else 1.0, 3.3))

    prompt = _box(axes, 0.1, 2.5, 1.3, "prompt")
    text_encoder = _box(axes, 1.8, 2.5, 1.3, "text encoder", BLUE)
    vectors = _box(axes, 3.6, 2.5, 2.4, f"context\n{context}")
    loop = _box(axes, 3.6, 1.2, 2.4, "", ORANGE, height=0.95)
    axes.text(4.8, 1.95, "at each timestep", ha="center", va="center", fontsize=9, color=INK)
    unet = _box(axes, 3.75, 1.27, 0.95, "UNet", BLUE, height=0.5)
    step = _box(axes, 5.0, 1.27, 0.85, "step", height=0.5)
    _arrow(axes, unet, step, "eps")
    decoder = _box(axes, 6.5, 1.35, 1.15, "decoder", BLUE)
    result = _box(axes, 8.05, 1.35, 1.45, f"image\n{image}")
    noise = _box(axes, 0.1, 1.35, 1.3, f"noise\n{latent}")
    for one, other in ((prompt, text_encoder), (text_encoder, vectors), (decoder, result)):
        _arrow(axes, one, other)
    _arrow(axes, loop, decoder, "latent")
    _down(axes, vectors, loop)

    if task == "txt2img":
        _arrow(axes, noise, loop, "the start")
        return figure
    given = _box(axes, 0.1, 0.2, 1.3, f"image\n{image}")
    encoder = _box(axes, 1.8, 0.2, 1.3, "encoder", BLUE)
    _arrow(axes, given, encoder)
    if task == "img2img":
        mixed = _box(axes, 1.8, 1.35, 1.3, "z + noise,\nat level t", ORANGE)
        _arrow(axes, noise, mixed)
        _arrow(axes, mixed, loop)
        _up(axes, encoder, mixed, f"z {latent}")
        return figure
    _arrow(axes, noise, loop, "the start")
    known = _box(axes, 3.6, 0.2, 2.4, "known region:\nz + noise, at level t", ORANGE)
    mask = _box(axes, 6.5, 0.2, 1.15, f"mask\n(1, {side}, {side})")
    _arrow(axes, encoder, known, "z")
    _arrow(axes, mask, known)
    _up(axes, known, loop, "after each step")
    return figure


def _box(
    axes: Any, left: float, bottom: float, width: float, text: str, colour: str = INK, height: float = HEIGHT
) -> Box:
    line = 0.8 if colour == INK else 1.6
    shape = FancyBboxPatch(
        (left, bottom),
        width,
        height,
        "round,pad=0,rounding_size=0.08",
        edgecolor=colour,
        facecolor=TINTS[colour],
        linewidth=line,
    )
    axes.add_patch(shape)
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=9.5, color=INK)
    return left, bottom, width, height


def _arrow(axes: Any, one: Box, other: Box, text: str = "") -> None:
    """From side to side, at the middle of the lower box."""
    forwards = one[0] < other[0]
    begin = one[0] + one[2] if forwards else one[0]
    end = other[0] if forwards else other[0] + other[2]
    lower = one if one[3] <= other[3] else other
    _line(axes, (begin, lower[1] + lower[3] / 2), (end, lower[1] + lower[3] / 2))
    axes.text((begin + end) / 2, lower[1] + lower[3] / 2 + 0.1, text, ha="center", fontsize=8.5, color=INK)


def _down(axes: Any, one: Box, other: Box) -> None:
    x = one[0] + one[2] / 2
    _line(axes, (x, one[1]), (x, other[1] + other[3]))


def _up(axes: Any, one: Box, other: Box, text: str) -> None:
    x = one[0] + one[2] / 2
    _line(axes, (x, one[1] + one[3]), (x, other[1]))
    axes.text(x + 0.1, (one[1] + one[3] + other[1]) / 2, text, va="center", fontsize=8.5, color=INK)


def _line(axes: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "", end, begin, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    )

"""What notebook teach_it draws: the two thin matrices, images of low rank, and what was learnt and forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image, ImageDraw, ImageFont

from ldm_course.evaluate.metrics import Share
from ldm_course.lab.shared import plots

RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@plots.style()
def two_ways(writes: int, reads: int, rank: int) -> Figure:
    """One layer with LoRA: x goes through W, and through A and B; the matrices are drawn to scale."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    unit = 2.0 / max(writes, reads)
    wide, tall, thin = reads * unit, writes * unit, max(rank * unit, 0.1)
    W, A, B, plus = (2.4, 3.3), (2.4, 0.9), (5.0, 0.9), (7.2, 2.1)
    for (x, y), width, height, colour in (
        (W, wide, tall, plots.SKY),
        (A, wide, thin, plots.ORANGE),
        (B, thin, tall, plots.ORANGE),
    ):
        axes.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, facecolor=colour, alpha=0.85))
    say: dict[str, Any] = {"ha": "center", "va": "center", "color": plots.INK}
    axes.text(*W, f"W\n{writes} x {reads}\nstays as it is", fontsize=10, **say)
    axes.text(A[0], 0.42, f"A   {rank} x {reads}", fontsize=10, **say)
    axes.text(B[0], B[1] - tall / 2 - 0.2, f"B   {writes} x {rank}", fontsize=10, **say)
    axes.text(0.4, 2.1, "x", fontsize=17, **say)
    axes.text(*plus, "+", fontsize=22, **say)
    axes.text(8.9, 2.1, "Wx + BAx", fontsize=13, **say)
    for start, end in (
        ((0.6, 2.25), (W[0] - wide / 2 - 0.1, 3.1)),
        ((0.6, 1.95), (A[0] - wide / 2 - 0.1, 1.0)),
        ((A[0] + wide / 2 + 0.1, 0.9), (B[0] - thin / 2 - 0.1, 0.9)),
        ((W[0] + wide / 2 + 0.1, 3.3), (plus[0] - 0.2, 2.3)),
        ((B[0] + thin / 2 + 0.1, 0.9), (plus[0] - 0.2, 1.9)),
        ((plus[0] + 0.25, 2.1), (8.05, 2.1)),
    ):
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="#777777", linewidth=1.2)
        )
    axes.set(xlim=(0, 9.9), ylim=(-0.45, 4.4), aspect="equal")
    axes.set_axis_off()
    return figure


def of_rank(image: Image.Image, rank: int) -> Image.Image:
    """The image in grey as the nearest matrix of a rank, by its singular values (Eckart and Young 1936)."""
    grey = np.asarray(image.convert("L"), dtype=float)
    u, s, v = np.linalg.svd(grey, full_matrices=False)
    low = (u[:, :rank] * s[:rank]) @ v[:rank]
    return Image.fromarray(low.clip(0, 255).round().astype(np.uint8)).convert("RGB")


def rank_pages(image: Image.Image) -> list[Image.Image]:
    """For each of RANKS: the image in grey, by a matrix of this rank, and how many values A and B then have."""
    side, pages = image.width, []
    for rank in RANKS:
        titles = [f"all {side * side:,} values", f"rank {rank}: {2 * side * rank:,} values"]
        pages.append(plots.grid([[image.convert("L").convert("RGB"), of_rank(image, rank)]], titles, side=320))
    return pages


def page(images: Sequence[Image.Image], step: int, steps: int) -> Image.Image:
    """What the model generates after so many steps, and a bar that says how far the lesson is."""
    row = plots.grid([images], side=272)
    canvas = Image.new("RGB", (row.width, row.height + 68), "white")
    canvas.paste(row, (0, 0))
    pen, y = ImageDraw.Draw(canvas), row.height + 12
    pen.rectangle((0, y, canvas.width - 1, y + 11), fill="#dddddd")
    pen.rectangle((0, y, round((canvas.width - 1) * step / steps), y + 11), fill=plots.ORANGE)
    font = ImageFont.truetype(plots.FONT, plots.TEXT)
    pen.text((0, canvas.height), f"{step} of {steps} steps", plots.INK, font, anchor="ld")
    return canvas


def labelled(images: Sequence[Image.Image], words: Sequence[str], columns: int = 4, side: int = 272) -> Image.Image:
    """Images in rows of four, each with its own words above it."""
    rows = [
        plots.grid([images[i : i + columns]], words[i : i + columns], side=side)
        for i in range(0, len(images), columns)
    ]
    canvas = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for i, row in enumerate(rows):
        canvas.paste(row, (0, i * rows[0].height))
    return canvas


@plots.style()
def shares(rows: Mapping[str, Mapping[str, Share]]) -> Figure:
    """Shares of right images with their 95% intervals: a row for each kind of prompt, a colour for each model.

    rows: kind of prompt -> name of the model -> share; the same models in each row.
    """
    models = list(next(iter(rows.values())))
    figure = Figure(figsize=(8, 0.5 + 0.26 * len(rows) * (len(models) + 0.6)), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(models, (plots.PALE, plots.ORANGE, plots.BLUE, plots.GREEN)))
    ticks, at = [], 0.0
    for measured in rows.values():
        ticks.append(at + (len(models) - 1) / 2)
        for name, share in measured.items():
            low, high = share.interval()
            axes.plot((low, high), (at, at), color=colours[name], linewidth=5, alpha=0.45, solid_capstyle="round")
            axes.plot(share.right / share.count, at, "o", color=colours[name], markersize=8, zorder=3)
            text = f"{share.right} of {share.count}"
            axes.text(1.03, at, text, va="center", fontsize=9, color="#555555", transform=axes.get_yaxis_transform())
            at += 1
        at += 0.6
    axes.set_yticks(ticks, list(rows))
    axes.set_xticks((0, 0.25, 0.5, 0.75, 1), ("0%", "25%", "50%", "75%", "100%"))
    axes.set(xlim=(-0.02, 1.02), ylim=(at - 0.9, -0.7))
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for name in models:
        axes.plot([], [], "o", color=colours[name], label=name)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(models))
    return figure

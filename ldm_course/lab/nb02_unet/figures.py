"""Figures of notebook 02: the U with its features, drawings of its parts, maps of what a cell sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image
from torch import Tensor

from ldm_course.lab.nb02_unet.probes import Stage
from ldm_course.lab.shared.plots import AMBER, BLUE, GREEN, INK, ORANGE, PINK, SIDE, SIGNED, SKY, style

Point = tuple[float, float]
PALE_BLUE, PALE_AMBER, PALE_GREY = "#dcebf5", "#fbeed3", "#eeeeee"

# ---- strokes ---------------------------------------------------------------------------------------------------


def _page(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty page, a unit to the inch."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _path(axes: Axes, points: Sequence[Point], colour: str = INK, lw: float = 1.3) -> None:
    """Straight strokes from point to point, with a head at the end."""
    if len(points) > 2:
        axes.plot(*zip(*points[:-1]), color=colour, lw=lw, solid_capstyle="round", zorder=1)
    head = FancyArrowPatch(
        *points[-2:], arrowstyle="-|>", mutation_scale=11, color=colour, lw=lw, shrinkA=0, shrinkB=0, zorder=1
    )
    axes.add_patch(head)


def _box(
    axes: Axes, x: float, y: float, w: float, h: float, text: str, colour: str = INK, fill: str = "white"
) -> None:
    """A box around the point (x, y)."""
    corner = (x - w / 2, y - h / 2)
    shape = FancyBboxPatch(corner, w, h, "round,pad=0,rounding_size=0.07", ec=colour, fc=fill, lw=1.5, zorder=2)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=10, color=INK, linespacing=1.2, zorder=3)


def _plus(axes: Axes, x: float, y: float) -> None:
    axes.add_patch(Circle((x, y), 0.15, ec=INK, fc="white", lw=1.5, zorder=2))
    axes.text(x, y - 0.015, "+", ha="center", va="center", fontsize=14, color=INK, zorder=3)


def _note(
    axes: Axes, x: float, y: float, text: str, colour: str = INK, size: float = 9.5, ha: str = "center",
    weight: str = "normal",
) -> None:  # fmt: skip
    axes.text(x, y, text, color=colour, fontsize=size, linespacing=1.3, ha=ha, va="center", weight=weight)


# ---- the blocks ------------------------------------------------------------------------------------------------


@style()
def residual_block() -> Figure:
    """The residual block: two convolutions, the time in between, the shortcut around."""
    figure, axes = _page(10, 2.55)
    y = 1.25
    for x, text, fill in (
        (1.45, "norm", "white"), (2.4, "SiLU", "white"), (3.45, "3 x 3\nconv", PALE_BLUE),
        (5.55, "norm", "white"), (6.5, "SiLU", "white"), (7.55, "3 x 3\nconv", PALE_BLUE),
    ):  # fmt: skip
        _box(axes, x, y, 0.72, 0.62, text, BLUE if fill == PALE_BLUE else INK, fill)
    for x in (4.5, 8.6):
        _plus(axes, x, y)
    stops = (
        0.55,
        1.09,
        1.81,
        2.04,
        2.76,
        3.09,
        3.81,
        4.35,
        4.65,
        5.19,
        5.91,
        6.14,
        6.86,
        7.19,
        7.91,
        8.45,
        8.75,
        9.3,
    )
    for begin, end in zip(stops[::2], stops[1::2]):
        _path(axes, [(begin, y), (end, y)])
    _note(axes, 0.4, y, "x", size=13)
    _note(axes, 9.6, y, "result", size=10.5)
    _path(axes, [(0.75, y), (0.75, 2.2), (8.6, 2.2), (8.6, y + 0.15)], GREEN, 2.2)
    _note(axes, 4.7, 2.38, "shortcut (a 1 x 1 convolution where the number of channels changes)", GREEN)
    _box(axes, 2.4, 0.35, 0.72, 0.44, "SiLU", AMBER)
    _box(axes, 3.45, 0.35, 0.72, 0.44, "linear", AMBER, PALE_AMBER)
    _path(axes, [(1.5, 0.35), (2.04, 0.35)], AMBER, 2.2)
    _path(axes, [(2.76, 0.35), (3.09, 0.35)], AMBER, 2.2)
    _path(axes, [(3.81, 0.35), (4.5, 0.35), (4.5, y - 0.15)], AMBER, 2.2)
    _note(axes, 1.1, 0.35, "temb", AMBER, 11)
    _note(axes, 4.65, 0.35, "one value per channel, the same at every position", AMBER, ha="left")
    return figure


@style()
def transformer_block() -> Figure:
    """The transformer block: look at each other, look at the text, think; each added to what was there."""
    figure, axes = _page(10, 2.45)
    y = 0.95
    columns = ((1.25, "self-\nattention", BLUE, PALE_BLUE), (4.25, "cross-\nattention", ORANGE, "#fbe7db"),
               (7.25, "feed-\nforward", INK, PALE_GREY))  # fmt: skip
    heads = ("positions look at each other", "positions look at the text", "each position thinks for itself")
    _note(axes, 0.2, y, "x", size=13)
    _path(axes, [(0.32, y), (0.9, y)])
    for (x, text, colour, fill), head in zip(columns, heads):
        _box(axes, x, y, 0.7, 0.55, "norm")
        _box(axes, x + 1.15, y, 0.95, 0.7, text, colour, fill)
        _plus(axes, x + 2.05, y)
        _path(axes, [(x + 0.35, y), (x + 0.67, y)])
        _path(axes, [(x + 1.63, y), (x + 1.9, y)])
        _path(axes, [(x + 2.2, y), (x + 2.65, y)])
        _path(axes, [(x - 0.62, y), (x - 0.62, y + 0.68), (x + 2.05, y + 0.68), (x + 2.05, y + 0.15)], GREEN, 2.2)
        _note(axes, x + 0.72, y + 0.86, head)
    _note(axes, 4.25 + 1.15, 0.14, "the text: 77 vectors", ORANGE)
    _path(axes, [(4.25 + 1.15, 0.26), (4.25 + 1.15, y - 0.35)], ORANGE, 2.2)
    return figure


@style()
def attention(q: Tensor, k: Tensor, v: Tensor, shares: Tensor, result: Tensor, rows: Sequence[str],
              columns: Sequence[str]) -> Figure:  # fmt: skip
    """Attention as matrices: queries (n, d) times keys (m, d), softmax along each row, times values (m, e)."""
    panels = [("q", q, rows, ()), ("k transposed", k.T, (), columns), ("shares", shares, rows, columns),
              ("v", v, columns, ()), ("result", result, rows, ())]  # fmt: skip
    cell, most = 0.5, max(values.abs().max().item() for _, values, *_ in panels)
    signs, gaps = ("·", "/ √2, softmax →", "·", "="), (0.4, 2.05, 0.95, 0.95)
    figure, axes = _page(1.5 + cell * sum(values.shape[1] for _, values, *_ in panels) + sum(gaps), 2.4)
    x = 0.75
    for (name, values, left, below), sign, gap in zip(panels, (*signs, ""), (*gaps, 0)):
        n, m = values.shape
        top, is_share = 1.15 + n * cell / 2, name == "shares"
        for row, line in enumerate(values.tolist()):
            for column, value in enumerate(line):
                colour = matplotlib.colormaps["cividis"](value) if is_share else SIGNED(0.5 + value / (2 * most))
                corner = (x + column * cell, top - (row + 1) * cell)
                axes.add_patch(Rectangle(corner, cell, cell, fc=colour, ec="white", lw=1.5))
                dark = value < 0.6 if is_share else abs(value) > 0.7 * most
                text = f"{value:.2f}" if is_share else f"{value:.1f}"
                _note(axes, corner[0] + cell / 2, corner[1] + cell / 2, text, "white" if dark else INK, 9)
        for row, label in enumerate(left):
            _note(axes, x - 0.07, top - (row + 0.5) * cell, label, "#555555", 8.5, ha="right")
        for column, label in enumerate(below):
            _note(axes, x + (column + 0.5) * cell, top - n * cell - 0.14, label, "#555555", 8.5)
        _note(axes, x + m * cell / 2, top + 0.18, name, size=10.5)
        x += m * cell
        _note(axes, x + (0.2 if gap < 1 else 0.85), 1.15, sign, size=12)
        x += gap
    return figure


@style()
def stack(found: Sequence[Stage]) -> Figure:
    """Every skip from the moment it is pushed to the moment it is popped: a bar over the blocks in between."""
    order = [stage.name for stage in found if stage.kind != "up"]
    readers = [stage for stage in found if stage.source is not None]
    figure = Figure(figsize=(9.5, 0.46 * len(readers) + 0.9))
    axes = figure.subplots()
    shapes = {stage.name: stage.shape for stage in found}
    sides = sorted({shape[1] for shape in shapes.values()}, reverse=True)
    for height, reader in enumerate(reversed(readers)):
        assert reader.source is not None
        begin, end = order.index(reader.source), order.index(reader.name)
        c, h, w = shapes[reader.source]
        colour = (SKY, GREEN, PINK, AMBER)[sides.index(h) % 4]
        axes.barh(height, end - begin, left=begin, height=0.72, color=colour, alpha=0.55, ec=colour)
        axes.text((begin + end) / 2, height, f"{c} x {h} x {w}", ha="center", va="center", fontsize=9.5)
        axes.text(begin - 0.15, height, "push", ha="right", va="center", fontsize=9)
        axes.text(end + 0.15, height, "pop", ha="left", va="center", fontsize=9)
    middle = [i for i, name in enumerate(order) if name.startswith("mid")]
    axes.axvspan(middle[0] - 0.5, middle[-1] + 0.5, color=PALE_GREY, zorder=0)
    axes.text(sum(middle) / len(middle), len(readers) - 0.35, "the middle", ha="center", va="bottom", fontsize=9.5)
    axes.set(ylabel="place in the stack", yticks=[], xticks=[], xlabel="the way down     →     the way up",
             xlim=(-1.4, len(order) + 0.2), ylim=(-0.6, len(readers) - 0.4))  # fmt: skip
    axes.spines.left.set_visible(False)
    return figure


# ---- the U -----------------------------------------------------------------------------------------------------


@style()
def draw_u(found: Sequence[Stage], features: Mapping[str, Tensor] | None = None) -> Figure:
    """The UNet's stages in their order: a row per level and one for the middle, the way down left, the way up right.

    features: what each stage returned for one latent, (1, c, h, w), to be drawn in its box; see `feature_image`.
    """
    boxes = {stage.name: stage for stage in found}
    blocks = {after.name: before.name for before, after in zip(found, found[1:]) if after.kind == "transformer"}
    after = {block: transformer for transformer, block in blocks.items()}
    places = _places(found)
    rows = 1 + max(row for _, row in places.values())
    columns = 1 + max(column for column, _ in places.values())
    sizes = {row: boxes[name].shape[1:] for name, (_, row) in places.items()}
    size = 0.86 if features else 0.46
    wide = (11 - 2.2) / columns
    high = size + (0.74 if features else 0.8)
    figure, axes = _page(11, rows * high + 0.25)

    def centre(name: str) -> Point:
        column, row = places[name]
        return 1.4 + (column + 0.5) * wide, (rows - row - 0.5) * high + 0.15

    half = size / 2
    for before, name in zip(places, list(places)[1:]):
        (x, y), (x_, y_) = centre(before), centre(name)
        if y == y_:
            _path(axes, [(x + half, y), (x_ - half, y_)])
        elif y > y_:
            _path(
                axes, [(x, y - half - 0.22), (x, y_ + half)] if x == x_ else [(x, y - half - 0.22), (x_, y_ + half)]
            )
        else:
            _path(axes, [(x, y + half), (x_, y_ - half - 0.52)])
    for name in places:
        stage, (x, y) = boxes[name], centre(name)
        attends = name in after
        colour = AMBER if attends else BLUE if stage.kind == "resnet" else "#777777"
        fill = {AMBER: PALE_AMBER, BLUE: PALE_BLUE}.get(colour, PALE_GREY)
        axes.add_patch(Rectangle((x - half, y - half), size, size, ec=colour, fc=fill, lw=3, zorder=2))
        if features:
            drawn = feature_image(features[after.get(name, name)])
            place = (x - half + 0.03, x + half - 0.03, y - half + 0.03, y + half - 0.03)
            axes.imshow(drawn, extent=place, aspect="auto", zorder=3, interpolation="nearest")
        _note(axes, x, y - half - 0.12, str(stage.shape[0]), size=10, weight="bold")
        if stage.source is not None:
            _note(axes, x, y - half - 0.3, f"+ {stage.skip}", GREEN, 9 if features else 7.5)
            source = blocks.get(stage.source, stage.source)
            row = places[name][1]
            inside = sum(r == row and places[source][0] < c < places[name][0] for c, r in places.values()) // 2
            (x_from, top), above = centre(source), half + 0.12 + 0.09 * inside
            corners = [(x_from + 0.12, top + half), (x_from + 0.12, top + above), (x - 0.12, top + above)]
            _path(axes, [*corners, (x - 0.12, y + half)], GREEN, 1.6)
    for row, (h, w) in sizes.items():
        words = f"{h} x {w}" + ("\nthe middle" if row == rows - 1 else "")
        _note(axes, 0.1, (rows - row - 0.5) * high + 0.15, words, size=11, weight="bold", ha="left")
    (x, y), (x_, y_) = centre(found[0].name), centre(list(places)[-1])
    _path(axes, [(x - half - 0.3, y), (x - half, y)])
    _path(axes, [(x_ + half, y_), (x_ + half + 0.3, y_)])
    _note(axes, x - half - 0.32, y, f"x_t\n{found[0].own}", ha="right")
    _note(axes, x_ + half + 0.32, y_, f"eps_hat\n{found[-1].shape[0]}", ha="left")
    _legend(axes, 10.2, 0.2)
    return figure


def _legend(axes: Axes, right: float, y: float) -> None:
    lines = (("residual block, hears the time", BLUE), ("with a transformer, hears the text, too", AMBER),
             ("convolution alone", "#777777"), ("skip, and how many channels it adds", GREEN))  # fmt: skip
    for i, (words, colour) in enumerate(reversed(lines)):
        if colour == GREEN:
            _path(axes, [(right - 3.05, y + 0.24 * i), (right - 2.8, y + 0.24 * i)], colour, 1.6)
        else:
            corner = (right - 3.0, y + 0.24 * i - 0.07)
            axes.add_patch(Rectangle(corner, 0.15, 0.15, ec=colour, fc="white", lw=2.2))
        _note(axes, right - 2.7, y + 0.24 * i, words, size=9, ha="left")


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


def feature_image(features: Tensor) -> np.ndarray:
    """Features (1, c, h, w) as colours (h, w, 3): their three principal components as red, green and blue."""
    c, h, w = features.shape[1:]
    values = features[0].detach().float().cpu().reshape(c, -1)
    values = values - values.mean(dim=1, keepdim=True)
    u, s, v = torch.linalg.svd(values, full_matrices=False)
    parts = v[:3] * u[:, :3].sum(dim=0).sign()[:, None]  # (3, h*w), each with a sign that does not change by chance
    parts = parts / (2.5 * parts.std(dim=1, keepdim=True))
    return (0.5 + 0.5 * parts).clamp(0, 1).reshape(3, h, w).permute(1, 2, 0).numpy()


# ---- time ------------------------------------------------------------------------------------------------------


@style()
def clocks(times: Sequence[int], embedding: Tensor) -> Figure:
    """Left, a few waves of some timesteps as hands of clocks; right, the embedding (1000, dim) of every timestep."""
    half = embedding.shape[1] // 2
    picks = [round(i) for i in np.linspace(0, 0.62 * half, 5)]
    figure = Figure(figsize=(9.2, 2.6))
    axes = figure.add_axes((0, 0, 0.47, 1))
    axes.set(xlim=(-1.3, 5.2), ylim=(-0.55, 3.35), aspect="equal")
    axes.axis("off")
    for row, t in enumerate(times):
        y = len(times) - 1 - row
        _note(axes, -0.6, y, f"t = {t}", size=10.5, ha="right", weight="bold")
        for column, i in enumerate(picks):
            axes.add_patch(Circle((column, y), 0.42, fc="white", ec="#999999", lw=1.2))
            across, up = float(embedding[t, half + i]), float(embedding[t, i])
            axes.plot(
                [column, column + 0.38 * across], [y, y + 0.38 * up], color=ORANGE, lw=2.6, solid_capstyle="round"
            )
            axes.add_patch(Circle((column, y), 0.04, fc=INK, ec="none", zorder=3))
    _note(axes, 0, len(times) - 0.33, "fast hand", "#555555", 9)
    _note(axes, 4, len(times) - 0.33, "slow hand", "#555555", 9)
    heat = figure.add_axes((0.555, 0.17, 0.39, 0.7))
    image = heat.imshow(
        embedding.T.numpy(), SIGNED, aspect="auto", interpolation="nearest", vmin=-1, vmax=1,
        extent=(0, len(embedding), embedding.shape[1], 0),
    )  # fmt: skip
    heat.set(xlabel="timestep t", yticks=[half / 2, 3 * half / 2], yticklabels=["cosines", "sines"])
    heat.set_title("every timestep, one column each")
    heat.tick_params(left=False)
    heat.spines[:].set_visible(False)
    figure.colorbar(image, ax=heat, pad=0.03, ticks=[-1, 0, 1]).outline.set_visible(False)
    return figure


# ---- maps ------------------------------------------------------------------------------------------------------


@style()
def sight(maps: Mapping[str, Tensor]) -> Figure:
    """For each network a map (h, w): of how much of the input each cell of the output depends on, 0 to 1."""
    figure = Figure(figsize=(3.1 * len(maps) + 0.9, 3.2), layout="constrained")
    panels = figure.subplots(1, len(maps))
    for axes, (name, values) in zip(panels, maps.items()):
        image = axes.imshow(values.numpy(), "cividis", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: {values.mean():.0%} on average", fontsize=10.5)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panels, pad=0.02, ticks=[0, 0.5, 1], shrink=0.9)
    bar.ax.set_yticklabels(["0%", "50%", "100%"])
    bar.set_label("of the input is seen")
    bar.outline.set_visible(False)
    return figure


def overlay(image: Image.Image, values: Tensor, highest: float) -> Image.Image:
    """A map of values (h, w) from 0 to `highest`, in cividis, over the image in grey."""
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE)), dtype=float)[..., None] / 255
    heat = Image.fromarray(values.detach().float().cpu().numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    colours = matplotlib.colormaps["cividis"](np.clip(np.asarray(heat) / highest, 0, 1))[..., :3]
    return Image.fromarray((255 * (0.7 * colours + 0.3 * grey)).round().astype(np.uint8))

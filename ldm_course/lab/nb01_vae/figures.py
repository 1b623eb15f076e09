"""Small images to train on, a training monitor, maps of two-dimensional latents, and drawings. Notebook 01."""

from __future__ import annotations

import functools
import io
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Patch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ldm_course.errors import InputError
from ldm_course.images import to_pil, to_tensor
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.pad import PointPad
from ldm_course.scenes import ATTRIBUTES, Scene, training_scene

SMALL = 32  # pixels, the side of the small scenes
FACE = 40  # pixels, the side of the faces
ANIMALS, COLOURS = ("cat", "dog", "rabbit", "elephant"), ("white", "orange", "pink", "blue")  # of the faces
FUR = dict(zip(COLOURS, ("#9a9a9a", plots.AMBER, plots.PINK, plots.BLUE)))  # how a fur colour is plotted
MARKERS = dict(zip(ANIMALS, "os^D"))

Decode = Callable[[Tensor], Tensor]


# ---- data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledImages:
    """Small images and their labels.

    x: (n, 3, side, side) in [-1, 1].
    labels: an attribute's name to (n,) whole numbers that say its value.
    """

    x: Tensor
    labels: dict[str, Tensor]


@functools.cache
def small_scenes(count: int, seed: int) -> LabelledImages:
    """Simple scenes of 32 x 32 pixels: an animal sits in the middle. Kind, colour, place and shades vary.

    Raises InputError if count is below 1.
    """
    _check_count(count)
    scenes = [
        replace(
            training_scene(seed, i), accessory=None, action="sitting", facing="right",
            x=0.0, y=0.0, size=1.0, tilt=0.0, gaze=0.0, smile=0.5,
        )
        for i in range(count)
    ]  # fmt: skip
    names = ("animal", "colour", "place")
    labels = {name: _whole([ATTRIBUTES[name].index(getattr(scene, name)) for scene in scenes]) for name in names}
    return LabelledImages(to_tensor([scene.render(SMALL) for scene in scenes]), labels)


@functools.cache
def faces(count: int, seed: int) -> LabelledImages:
    """Faces of 40 x 40 pixels in front of one and the same snow. Animal, fur colour, shade and hat or no hat vary.

    Labels are indices into `ANIMALS` and `COLOURS`, and 1 for a hat. Raises InputError if count is below 1.
    """
    _check_count(count)
    rng = random.Random(seed)
    images, labels = [], []
    for _ in range(count):
        animal, colour, hat = rng.randrange(len(ANIMALS)), rng.randrange(len(COLOURS)), rng.randrange(2)
        accessory = "hat" if hat else None
        scene = Scene(
            animal=ANIMALS[animal], colour=COLOURS[colour], accessory=accessory, place="snow",
            fur_shade=rng.uniform(-1, 1),
        )  # fmt: skip
        images.append(scene.render(58).crop((9, 1, 9 + FACE, 1 + FACE)))
        labels.append((animal, colour, hat))
    return LabelledImages(to_tensor(images), dict(zip(("animal", "colour", "hat"), map(_whole, zip(*labels)))))


def _check_count(count: int) -> None:
    if count < 1:
        raise InputError(f"count is {count}; it must be 1 or more.")


def _whole(values: Sequence[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64, device="cpu")


def jpeg_of(image: Image.Image, most: int) -> Image.Image:
    """The image as it comes back from the best JPEG file of at most so many bytes, or from the smallest there is."""
    best = b""
    for quality in range(1, 96):
        file = io.BytesIO()
        image.save(file, "jpeg", quality=quality, optimize=True)
        if not best or len(file.getvalue()) <= most:
            best = file.getvalue()
    return Image.open(io.BytesIO(best)).convert("RGB")


# ---- the training monitor --------------------------------------------------------------------------------------


class TrainingMonitor:
    """Draws images above their reconstructions about once a second while a model trains.

    Args:
        rebuild: (model, images) -> reconstructions; images are (n, 3, h, w) in [-1, 1].
        x: the images to draw.
        steps: of the whole training.
        name: of the model, for the caption.
    """

    def __init__(self, rebuild: Callable[[nn.Module, Tensor], Tensor], x: Tensor, steps: int, name: str):
        self.rebuild, self.x, self.steps, self.name = rebuild, x, steps, name
        self.live: plots.Live | None = None
        self.count, self.drawn = 0, 0.0

    def __call__(self, model: nn.Module) -> None:
        """Count a step, and draw if it is time or the training is over."""
        self.count += 1
        if self.live and time.monotonic() - self.drawn < 1 and self.count < self.steps:
            return
        with torch.no_grad():
            images = rows([self.x, self.rebuild(model, self.x)], labels=["images", f"step {self.count}"])
        if self.live:
            self.live.draw(images)
        else:
            self.live = plots.Live(images, f"Faces of the test set, and how the {self.name} reconstructs them.")
        self.drawn = time.monotonic()


# ---- images and maps -------------------------------------------------------------------------------------------


def rows(
    batches: Sequence[Tensor], titles: Sequence[str] = (), labels: Sequence[str] = (), side: int = 104
) -> Image.Image:
    """Batches of small images, each batch a row."""
    return plots.grid([to_pil(batch) for batch in batches], titles, labels, side)


class LatentMap:
    """Two-dimensional latents as a map in raw units: 0 is in the middle, and both axes have one scale.

    Args:
        z: latents (n, 2).
        x: their images, each drawn at its latent's place.
        decode: latents to images.
        reach: the map shows -reach to reach on both axes.
    """

    side = 768  # in drawn pixels

    def __init__(self, z: Tensor, x: Tensor, decode: Decode, reach: float):
        if z.dim() != 2 or z.shape[1] != 2:
            raise InputError(f"A map needs latents of two dimensions; these have the shape {tuple(z.shape)}.")
        self.decode, self.reach = decode, reach
        self.map = Image.new("RGB", (self.side, self.side), "white")
        for place, small in zip(z.tolist(), to_pil(x)):
            left, top = self.pixel(*place)
            self.map.paste(small.resize((56, 56), Image.Resampling.LANCZOS), (round(left) - 28, round(top) - 28))
        self._rings(self.map)
        self._axes(self.map)

    def _rings(self, canvas: Image.Image) -> None:
        """The prior's rings of radius 1 and 2."""
        pen = ImageDraw.Draw(canvas)
        for radius in (1, 2):
            (left, top), (right, bottom) = self.pixel(-radius, radius), self.pixel(radius, -radius)
            pen.ellipse((left - 2, top - 2, right + 2, bottom + 2), outline="white", width=8)
            pen.ellipse((left, top, right, bottom), outline=plots.BLUE, width=4)

    def _axes(self, canvas: Image.Image) -> None:
        """Numbers along two edges, and a frame."""
        pen, font = ImageDraw.Draw(canvas), ImageFont.truetype(plots.FONT, 24)
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if self.reach / step <= 5)
        for value in range(-step * int(0.9 * self.reach / step), int(0.9 * self.reach) + 1, step):
            x, y = self.pixel(value, value)
            for place, anchor in (((x, self.side - 8), "ms"), ((8, y), "lm")):
                pen.text(place, f"{value}", plots.INK, font, anchor, stroke_width=3, stroke_fill="white")
        pen.rectangle((0, 0, self.side - 1, self.side - 1), outline=plots.PALE, width=2)

    def pixel(self, first: float, second: float) -> tuple[float, float]:
        """The position of a latent on the map, from the left and from the top."""
        return (first / self.reach + 1) * self.side / 2, (1 - second / self.reach) * self.side / 2

    def decoded(self, first: float, second: float) -> Image.Image:
        """The image that a latent decodes to."""
        with torch.no_grad():
            return to_pil(self.decode(torch.tensor([[first, second]], dtype=torch.float32, device="cpu")))[0]

    def mosaic(self, count: int = 12) -> Image.Image:
        """What count x count evenly spaced places of the map decode to."""
        tile = self.side // count
        edge = self.reach * (1 - 1 / count)  # of the outermost tiles' centres
        places = torch.linspace(-edge, edge, count, dtype=torch.float32, device="cpu")
        with torch.no_grad():
            images = to_pil(self.decode(torch.cartesian_prod(-places, places).flip(1)))
        canvas = Image.new("RGB", (tile * count, tile * count))
        for i, image in enumerate(images):
            small = image.resize((tile, tile), Image.Resampling.LANCZOS)
            canvas.paste(small, (i % count * tile, i // count * tile))
        canvas = canvas.resize((self.side, self.side))
        self._rings(canvas)
        return canvas


def explorer(maps: dict[str, LatentMap]) -> ipywidgets.VBox:
    """Drag a point over the map of one of the models, or move it by sliders, and see what it decodes to."""
    which = ipywidgets.ToggleButtons(options=list(maps), description="model")
    reach = max(each.reach for each in maps.values())
    sliders = [
        ipywidgets.FloatSlider(value=0.0, min=-reach, max=reach, step=0.05, description=name) for name in ("z1", "z2")
    ]
    pad = PointPad(maps[which.value].map, maps[which.value].reach)
    image = ipywidgets.Image(format="jpeg", layout={"width": "320px", "height": "320px"})

    def draw(change: object = None) -> None:
        chosen = maps[which.value]
        pad.put(*(slider.value for slider in sliders))
        decoded = chosen.decoded(*pad.point)
        image.value = plots.jpeg(decoded.resize((640, 640), Image.Resampling.BICUBIC))

    def switch(change: object) -> None:
        pad.show(maps[which.value].map, maps[which.value].reach)
        draw()

    def dragged(change: object) -> None:
        for slider, value in zip(sliders, pad.point):
            slider.value = value

    for slider in sliders:
        slider.observe(draw, names="value")
    which.observe(switch, names="value")
    pad.observe(dragged, names="point")
    draw()
    controls = [which] if len(maps) > 1 else []
    return ipywidgets.VBox([*controls, ipywidgets.HBox([pad, image]), *sliders])


@plots.style()
def posteriors(panels: dict[str, tuple[Tensor, Tensor | None]], labels: dict[str, Tensor], reach: float) -> Figure:
    """Latents in the plane, one panel for each model, all at one scale, over the rings of the prior N(0, I).

    Args:
        panels: title -> means (n, 2), and standard deviations (n, 2) or None for points. An ellipse is two of them.
        labels: of `faces`.
        reach: each panel shows -reach to reach.
    """
    figure = Figure(
        figsize=(max(3.0, 5.2 - 0.5 * len(panels)) * len(panels) + 1.4, 4.4 if len(panels) < 3 else 3.6),
        layout="constrained",
    )
    for axes, (title, (mean, std)) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for radius, shade in ((3, 0.10), (2, 0.16), (1, 0.26)):
            axes.add_patch(Circle((0, 0), radius, facecolor=plots.SKY, alpha=shade, edgecolor="none"))
        axes.add_patch(Circle((0, 0), 2, facecolor="none", edgecolor=plots.BLUE, linewidth=1.2))
        colours = [FUR[COLOURS[i]] for i in labels["colour"].tolist()]
        if std is None:
            for i, marker in enumerate(MARKERS.values()):
                chosen = [j for j, animal in enumerate(labels["animal"].tolist()) if animal == i]
                points = mean[chosen].numpy()
                axes.scatter(
                    points[:, 0], points[:, 1], s=22, marker=marker, c=[colours[j] for j in chosen], linewidths=0
                )
        else:
            axes.scatter(*mean.T.numpy(), 4, colours)
            for centre, width, colour in zip(mean.tolist(), std.tolist(), colours):
                size = (4 * width[0], 4 * width[1])
                axes.add_patch(Ellipse(centre, *size, facecolor=colour, alpha=0.2, edgecolor="none"))
                axes.add_patch(Ellipse(centre, *size, facecolor="none", alpha=0.8, edgecolor=colour, linewidth=0.7))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
    dots = [Line2D([], [], marker="o", ls="", color=FUR[name], label=f"{name} fur") for name in COLOURS]
    if any(std is None for _, std in panels.values()):
        dots += [Line2D([], [], marker=m, ls="", color=plots.INK, label=name) for name, m in MARKERS.items()]
    figure.legend(handles=[*dots, Patch(color=plots.SKY, alpha=0.4, label="prior")], loc="outside right center")
    return figure


# ---- drawings --------------------------------------------------------------------------------------------------


@plots.style()
def vae_diagram(image: Image.Image, rebuilt: Image.Image) -> Figure:
    """Encoder, mean and standard deviation, sample, decoder, and where gradients pass."""
    figure, axes = _canvas(9.6, 2.75)
    _picture(axes, image, 0.1, 1.0)
    _picture(axes, rebuilt, 8.35, 1.0)
    _box(axes, 1.75, 1.3, 1.15, 0.65, "encoder", plots.BLUE)
    _box(axes, 3.5, 1.85, 0.95, 0.5, "mean", plots.ORANGE)
    _box(axes, 3.5, 0.9, 0.95, 0.5, "std", plots.ORANGE)
    _box(axes, 4.75, 0.05, 1.55, 0.5, "noise from N(0, 1)")
    _box(axes, 4.95, 1.3, 1.15, 0.65, "sample z", plots.GREEN)
    _box(axes, 6.75, 1.3, 1.15, 0.65, "decoder", plots.BLUE)
    for begin, end in (
        ((1.3, 1.62), (1.72, 1.62)),
        ((2.9, 1.75), (3.47, 2.1)),
        ((2.9, 1.5), (3.47, 1.15)),
        ((4.45, 2.1), (4.92, 1.8)),
        ((4.45, 1.15), (4.92, 1.45)),
        ((5.52, 0.57), (5.52, 1.27)),
        ((6.1, 1.62), (6.72, 1.62)),
        ((7.9, 1.62), (8.32, 1.62)),
    ):
        _arrow(axes, begin, end)
    for begin, end, bend in (
        ((6.9, 2.0), (5.8, 2.0), 0.3),
        ((5.2, 2.0), (4.5, 2.3), 0.25),
        ((4.95, 1.27), (4.5, 0.98), -0.25),
        ((3.45, 2.3), (2.6, 2.0), 0.25),
        ((3.45, 0.95), (2.6, 1.25), -0.25),
    ):
        _arrow(axes, begin, end, plots.PINK, bend, dashed=True)
    axes.text(6.35, 2.32, "gradient", color=plots.PINK, ha="center", fontsize=9.5)
    axes.text(5.65, 0.85, "no gradient needed", color=plots.INK, ha="left", fontsize=8.5)
    axes.text(0.7, 0.8, "image x", ha="center", fontsize=9.5, color=plots.INK)
    axes.text(8.95, 0.8, "reconstruction", ha="center", fontsize=9.5, color=plots.INK)
    return figure


@plots.style()
def kl_bells(pairs: Sequence[tuple[float, float]]) -> Figure:
    """For each (mean, std): its bell and the prior's, and below what their divergence sums up."""
    figure = Figure(figsize=(3.1 * len(pairs), 3.7), layout="constrained")
    z = np.linspace(-4, 4, 801)
    prior = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    grid = figure.subplots(2, len(pairs), sharex=True, height_ratios=(1.25, 1), squeeze=False)
    for i, (mean, std) in enumerate(pairs):
        bell, summed = grid[0, i], grid[1, i]
        q = np.exp(-(((z - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
        ratio = (z**2 - ((z - mean) / std) ** 2) / 2 - math.log(std)
        kl = (mean**2 + std**2 - 1) / 2 - math.log(std)
        bell.fill_between(z, prior, color=plots.SKY, alpha=0.35, linewidth=0)
        bell.plot(z, prior, color=plots.BLUE, label="prior N(0, 1)")
        bell.plot(z, q, color=plots.ORANGE, label=f"N({mean:g}, {std:g}²)")
        bell.set(yticks=[], ylim=(0, 1.35 * max(q.max(), 0.4)))
        bell.legend(fontsize=8.5, loc="upper left", borderaxespad=0, handlelength=1.2)
        summed.fill_between(z, q * ratio, where=ratio > 0, color=plots.GREEN, alpha=0.7, linewidth=0)
        summed.fill_between(z, q * ratio, where=ratio < 0, color=plots.PINK, alpha=0.7, linewidth=0)
        summed.axhline(0, color="#777777", linewidth=0.8)
        top = max(0.25, (q * ratio).max())
        summed.set(yticks=[], xlabel="z", ylim=(-0.3 * top - 0.08, 1.45 * top))
        summed.set_title(f"KL = {abs(kl):.2f} nats = {abs(kl) / math.log(2):.2f} bits")
    grid[1, 0].set_ylabel("q · log(q / p)")
    return figure


def difference(x: Tensor, y: Tensor, brightest: float = 0.5) -> Image.Image:
    """How far two images (1, 3, h, w) in [-1, 1] are apart at each pixel: white is 0, dark orange is `brightest`."""
    distance = ((x - y).detach().float().cpu().abs().mean(dim=1)[0] / brightest).clamp(0, 1).numpy()[..., None]
    pixels = (1 - distance) * 255 + distance * np.asarray(plots.HIGH)
    return Image.fromarray(pixels.round().astype(np.uint8))


def with_cell(image: Image.Image, row: int, column: int, cell: int = 8) -> Image.Image:
    """The image, three times as large, with the pixels of one latent cell framed."""
    large = image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST)
    left, top, side = 3 * cell * column, 3 * cell * row, 3 * cell
    pen = ImageDraw.Draw(large)
    pen.rectangle((left - 2, top - 2, left + side + 2, top + side + 2), outline="white", width=2)
    pen.rectangle((left, top, left + side, top + side), outline=plots.INK, width=2)
    return large


def _canvas(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(0, width), ylim=(0, height))
    return figure, axes


def _picture(axes: Any, image: Image.Image, left: float, bottom: float, side: float = 1.2) -> None:
    axes.imshow(
        np.asarray(image), extent=(left, left + side, bottom, bottom + side), aspect="auto", interpolation="lanczos"
    )


def _box(axes: Any, left: float, bottom: float, width: float, height: float, text: str, colour: str = "") -> None:
    style = "round,pad=0,rounding_size=0.08"
    edge, face = (colour, f"{colour}22") if colour else (plots.INK, "white")
    axes.add_patch(
        FancyBboxPatch((left, bottom), width, height, style, edgecolor=edge, facecolor=face, linewidth=1.5)
    )
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", fontsize=9.5, color=plots.INK)


def _arrow(
    axes: Any,
    begin: tuple[float, float],
    end: tuple[float, float],
    colour: str = plots.INK,
    bend: float = 0.0,
    dashed: bool = False,
) -> None:
    arrow = {
        "arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0,
        "connectionstyle": f"arc3,rad={bend}", "linestyle": "--" if dashed else "-",
    }  # fmt: skip
    axes.annotate("", end, begin, arrowprops=arrow)

"""What notebook 01 trains on and draws: small scenes, a training to watch, and maps of two-number latents."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ipywidgets
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ldm_course.errors import InputError
from ldm_course.images import to_pil
from ldm_course.lab.shared import plots
from ldm_course.scenes import ATTRIBUTES, training_scene

SMALL = 32  # pixels, the side of the small pictures
REACH = 3.0  # standard deviations of its latents that a map shows to either side

Encode = Callable[[Tensor], Tensor]


# ---- data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """Small pictures and what they show.

    x: (n, 3, 32, 32) in [-1, 1]. labels: "animal", "colour" and "place", each (n,) of indices into `ATTRIBUTES`.
    """

    x: Tensor
    labels: dict[str, Tensor]


@functools.cache
def small_scenes(count: int, seed: int) -> Pictures:
    """Scenes at their simplest: an animal sits in the middle and wears nothing. Kind, colour, place and shades vary.

    Raises:
        InputError: if count is below 1.
    """
    if count < 1:
        raise InputError(f"count is {count}; it must be 1 or more.")
    scenes = [
        replace(
            training_scene(seed, i), accessory=None, action="sitting", facing="right",
            x=0.0, y=0.0, size=1.0, tilt=0.0, gaze=0.0, smile=0.5,
        )
        for i in range(count)
    ]  # fmt: skip
    pixels = np.stack([np.asarray(scene.render(SMALL)) for scene in scenes])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    names = ("animal", "colour", "place")
    labels = {name: torch.tensor([ATTRIBUTES[name].index(getattr(s, name)) for s in scenes]) for name in names}
    return Pictures(x, labels)


# ---- training, watched -----------------------------------------------------------------------------------------


class Watch:
    """Draws the loss so far, and some pictures above what the model makes of them, about once a second.

    Args:
        rebuild: of a model and pictures (n, 3, h, w) in [-1, 1], to their reconstructions.
        x: the pictures to look at.
        steps: of the whole training.
        name: of the model, for the captions.
    """

    def __init__(self, rebuild: Callable[[nn.Module, Tensor], Tensor], x: Tensor, steps: int, name: str):
        self.rebuild, self.x, self.steps, self.name = rebuild, x, steps, name
        self.losses: list[float] = []
        self.live: list[plots.Live] = []
        self.drawn = 0.0

    def __call__(self, model: nn.Module, loss: float) -> None:
        """Note a step's loss, and draw if it is time or the training is over."""
        self.losses.append(loss)
        if self.live and time.monotonic() - self.drawn < 1 and len(self.losses) < self.steps:
            return
        with torch.no_grad():
            pictures = rows([self.x, self.rebuild(model, self.x)])
        curve = plots.losses({"loss": self.losses}, self.steps)
        if self.live:
            self.live[0].draw(curve)
            self.live[1].draw(pictures)
        else:
            self.live = [
                plots.Live(
                    curve,
                    f"The loss of the {self.name}, step by step; the dark line, the mean of the last steps, lags.",
                ),
                plots.Live(pictures, f"Fresh pictures, and below each what the {self.name} makes of it."),
            ]
        self.drawn = time.monotonic()


# ---- pictures --------------------------------------------------------------------------------------------------


def picture(x: Tensor) -> Image.Image:
    """One small picture (3, 32, 32), its pixels drawn 8 x 8."""
    small = to_pil(x[None])[0]
    return small.resize((8 * small.width, 8 * small.height), Image.Resampling.NEAREST)


def rows(batches: Sequence[Tensor], titles: Sequence[str] = (), labels: Sequence[str] = ()) -> Image.Image:
    """Batches of small pictures, each batch a row."""
    return plots.grid([[picture(x) for x in batch] for batch in batches], titles, labels, side=128)


class Plane:
    """The two-number latents of a model as a map. Its unit is their own standard deviation, its centre their mean.

    Args:
        encode: pictures to latents, (n, 2).
        decode: latents to pictures.
        x: the pictures to show, each where its latent lies.
    """

    side = 768  # of the map, in drawn pixels

    def __init__(self, encode: Encode, decode: Encode, x: Tensor):
        with torch.no_grad():
            z = encode(x)
        if z.dim() != 2 or z.shape[1] != 2:
            raise InputError(f"A map needs latents of two numbers; these have the shape {tuple(z.shape)}.")
        self.decode, self.mean, self.std = decode, z.mean(dim=0), z.std(dim=0)
        self.map = self._draw((z - self.mean) / self.std, x)

    def _draw(self, places: Tensor, x: Tensor, thumb: int = 64) -> Image.Image:
        canvas = Image.new("RGB", (self.side, self.side), "white")
        for place, small in zip(places.tolist(), to_pil(x)):
            left, top = self.pixel(*place)
            canvas.paste(small.resize((thumb, thumb)), (round(left) - thumb // 2, round(top) - thumb // 2))
        self._ring(canvas)
        ImageDraw.Draw(canvas).rectangle((0, 0, self.side - 1, self.side - 1), outline=plots.PALE, width=2)
        return canvas

    def _ring(self, canvas: Image.Image) -> None:
        """The circle of radius 2 around 0, inside which N(0, I) draws 86 of 100 points."""
        low, high = ((edge - self.mean) / self.std for edge in (-2.0, 2.0))
        (left, bottom), (right, top) = self.pixel(*low.tolist()), self.pixel(*high.tolist())
        pen = ImageDraw.Draw(canvas)
        pen.ellipse((left, top, right, bottom), outline="white", width=8)
        pen.ellipse((left + 2, top + 2, right - 2, bottom - 2), outline=plots.BLUE, width=4)

    def pixel(self, first: float, second: float) -> tuple[float, float]:
        """Where on the map a point is, from the left and from the top."""
        return (first / REACH + 1) * self.side / 2, (1 - second / REACH) * self.side / 2

    def decoded(self, first: float, second: float) -> Image.Image:
        """The picture at a point of the map."""
        place = torch.tensor([[first, second]], dtype=torch.float32)
        with torch.no_grad():
            return picture(self.decode(self.mean + self.std * place)[0])

    def at(self, first: float, second: float) -> Image.Image:
        """The map with a point on it, and beside it the picture that the point decodes to."""
        marked, (x, y) = self.map.copy(), self.pixel(first, second)
        pen = ImageDraw.Draw(marked)
        pen.ellipse((x - 16, y - 16, x + 16, y + 16), fill="white", outline=plots.INK, width=2)
        pen.ellipse((x - 10, y - 10, x + 10, y + 10), fill=plots.ORANGE)
        return plots.grid([[marked, self.decoded(first, second)]], side=self.side)

    def mosaic(self, count: int = 9) -> Image.Image:
        """What the points of the map decode to, count x count of them in even distances, and the ring."""
        edge = REACH * (1 - 1 / count)  # of the outermost tiles' centres
        steps = np.linspace(-edge, edge, count)
        tile = self.side // count
        canvas = Image.new("RGB", (tile * count, tile * count))
        for i, first in enumerate(steps):
            for j, second in enumerate(steps[::-1]):
                canvas.paste(self.decoded(first, second).resize((tile, tile)), (i * tile, j * tile))
        self._ring(canvas)
        return canvas


def explorer(planes: dict[str, Plane]) -> ipywidgets.VBox:
    """Move a point over the map of one model or another, and see what it decodes to."""
    which = ipywidgets.ToggleButtons(options=list(planes), description="model")
    layout = {"width": "420px"}
    sliders = [
        ipywidgets.FloatSlider(value=0.0, min=-REACH, max=REACH, step=0.1, description=name, layout=layout)
        for name in ("first", "second")
    ]
    image = ipywidgets.Image(format="jpeg", layout={"max_width": "100%", "width": f"{Plane.side}px"})

    def draw(change: object = None) -> None:
        image.value = plots.jpeg(planes[which.value].at(*(slider.value for slider in sliders)))

    for control in (which, *sliders):
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([which, *sliders, image])


def features_picture(h: Tensor) -> Image.Image:
    """The most varied channel of feature maps (1, c, h, w), dark where it is lowest and light where it is highest."""
    channels = h[0].detach().float().cpu()
    channel = channels[channels.flatten(1).std(dim=1).argmax()]
    low, high = channel.min(), channel.max()
    grey = ((channel - low) / (high - low).clamp_min(1e-12) * 255).round().byte().numpy()
    scale = max(1, plots.SIDE // grey.shape[1])
    return Image.fromarray(grey).resize((scale * grey.shape[1], scale * grey.shape[0]), Image.Resampling.NEAREST)


def error_picture(x: Tensor, y: Tensor, brightest: float = 0.5) -> Image.Image:
    """How far two pictures (1, 3, h, w) in [-1, 1] are apart: black where not, white from `brightest` on."""
    apart = (x - y).detach().float().cpu().square().mean(dim=1).sqrt()[0] / brightest
    return Image.fromarray((apart.clamp(0, 1) * 255).round().byte().numpy())

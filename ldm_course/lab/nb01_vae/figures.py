"""Small scenes to train on, a training monitor, and maps of two-number latents. Notebook 01."""

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
from ldm_course.images import to_pil, to_tensor
from ldm_course.lab.shared import plots
from ldm_course.scenes import ATTRIBUTES, training_scene

SMALL = 32  # pixels, the side of the small scenes
REACH = 3.0  # standard deviations of its latents that a map shows to either side

Encode = Callable[[Tensor], Tensor]


# ---- data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledImages:
    """Small images and their labels.

    x: (n, 3, 32, 32) in [-1, 1].
    labels: "animal", "colour" and "place", each (n,) of indices into `ATTRIBUTES`.
    """

    x: Tensor
    labels: dict[str, Tensor]


@functools.cache
def small_scenes(count: int, seed: int) -> LabelledImages:
    """Simple scenes: an animal sits in the middle and wears nothing. Kind, colour, place and shades vary.

    Raises InputError if count is below 1.
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
    x = to_tensor([scene.render(SMALL) for scene in scenes])
    labels = {
        name: torch.tensor(
            [ATTRIBUTES[name].index(getattr(scene, name)) for scene in scenes], dtype=torch.int64, device="cpu"
        )
        for name in ("animal", "colour", "place")
    }
    return LabelledImages(x, labels)


# ---- the training monitor --------------------------------------------------------------------------------------


class TrainingMonitor:
    """Draws the loss so far, and some images above their reconstructions, about once a second.

    Args:
        rebuild: (model, images) -> reconstructions; images are (n, 3, h, w) in [-1, 1].
        x: the images to draw.
        steps: of the whole training.
        name: of the model, for the captions.
    """

    def __init__(self, rebuild: Callable[[nn.Module, Tensor], Tensor], x: Tensor, steps: int, name: str):
        self.rebuild, self.x, self.steps, self.name = rebuild, x, steps, name
        self.losses: list[float] = []
        self.live: list[plots.Live] = []
        self.drawn = 0.0

    def __call__(self, model: nn.Module, loss: float) -> None:
        """Append a step's loss, and draw if it is time or the training is over."""
        self.losses.append(loss)
        if self.live and time.monotonic() - self.drawn < 1 and len(self.losses) < self.steps:
            return
        with torch.no_grad():
            images = rows([self.x, self.rebuild(model, self.x)])
        curve = plots.losses({"loss": self.losses}, self.steps)
        if self.live:
            self.live[0].draw(curve)
            self.live[1].draw(images)
        else:
            self.live = [
                plots.Live(
                    curve,
                    f"The loss of the {self.name}, step by step; the dark line, the mean of the last steps, lags.",
                ),
                plots.Live(images, f"Images of the test set, and below each its reconstruction by the {self.name}."),
            ]
        self.drawn = time.monotonic()


# ---- images ----------------------------------------------------------------------------------------------------


def rows(batches: Sequence[Tensor], titles: Sequence[str] = (), labels: Sequence[str] = ()) -> Image.Image:
    """Batches of small images, each batch a row."""
    return plots.grid([[plots.enlarged(x) for x in batch] for batch in batches], titles, labels, side=128)


class LatentMap:
    """The two-number latents of a model as a map. Its unit is their standard deviation, its centre their mean.

    Args:
        encode: images to latents, (n, 2).
        decode: latents to images.
        x: the images to draw, each at its latent's place.
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
        """The position of a point on the map, from the left and from the top."""
        return (first / REACH + 1) * self.side / 2, (1 - second / REACH) * self.side / 2

    def decoded(self, first: float, second: float) -> Image.Image:
        """The image that a point of the map decodes to."""
        place = torch.tensor([[first, second]], dtype=torch.float32, device="cpu")
        with torch.no_grad():
            return plots.enlarged(self.decode(self.mean + self.std * place)[0])

    def with_point(self, first: float, second: float) -> Image.Image:
        """The map with a point on it, and beside it the image that the point decodes to."""
        marked, (x, y) = self.map.copy(), self.pixel(first, second)
        pen = ImageDraw.Draw(marked)
        pen.ellipse((x - 16, y - 16, x + 16, y + 16), fill="white", outline=plots.INK, width=2)
        pen.ellipse((x - 10, y - 10, x + 10, y + 10), fill=plots.ORANGE)
        return plots.grid([[marked, self.decoded(first, second)]], side=self.side)

    def mosaic(self, count: int = 9) -> Image.Image:
        """The images that count x count evenly spaced points of the map decode to, and the ring."""
        edge = REACH * (1 - 1 / count)  # of the outermost tiles' centres
        steps = np.linspace(-edge, edge, count)
        tile = self.side // count
        canvas = Image.new("RGB", (tile * count, tile * count))
        for i, first in enumerate(steps):
            for j, second in enumerate(steps[::-1]):
                canvas.paste(self.decoded(first, second).resize((tile, tile)), (i * tile, j * tile))
        self._ring(canvas)
        return canvas


def explorer(maps: dict[str, LatentMap]) -> ipywidgets.VBox:
    """Move a point over the map of one of the models, and see what it decodes to."""
    which = ipywidgets.ToggleButtons(options=list(maps), description="model")
    layout = {"width": "420px"}
    sliders = [
        ipywidgets.FloatSlider(value=0.0, min=-REACH, max=REACH, step=0.1, description=name, layout=layout)
        for name in ("first", "second")
    ]
    image = ipywidgets.Image(format="jpeg", layout={"max_width": "100%", "width": f"{LatentMap.side}px"})

    def draw(change: object = None) -> None:
        image.value = plots.jpeg(maps[which.value].with_point(*(slider.value for slider in sliders)))

    for control in (which, *sliders):
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([which, *sliders, image])


def features_image(h: Tensor) -> Image.Image:
    """The channel of feature maps (1, c, h, w) that varies most, from black at its lowest to white at its highest."""
    channels = h[0].detach().float().cpu()
    channel = channels[channels.flatten(1).std(dim=1).argmax()]
    low, high = channel.min(), channel.max()
    grey = ((channel - low) / (high - low).clamp_min(1e-12) * 255).round().byte().numpy()
    scale = max(1, plots.SIDE // grey.shape[1])
    return Image.fromarray(grey).resize((scale * grey.shape[1], scale * grey.shape[0]), Image.Resampling.NEAREST)

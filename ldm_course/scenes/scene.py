"""A scene: what it shows, and how to draw it, mask it, caption it and draw one at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ldm_course.errors import InputError

from . import captions
from .drawing import draw
from .held_out import is_held_out
from .svg import document, rasterise, silhouette
from .vocabulary import ATTRIBUTES, PARTS

RANGES = {
    "x": 6.0,
    "y": 3.0,
    "size": 0.12,
    "tilt": 8.0,
    "fur_shade": 1.0,
    "gaze": 1.0,
    "background_hue": 1.0,
    "background_light": 1.0,
    "background_shift": 1.0,
    "background_spread": 1.0,
}
"""How far `random_scene` goes to either side of each field's default."""


@dataclass(frozen=True)
class Scene:
    """One picture, described by five attributes and by how it varies. The defaults give a neutral picture.

    Any number up to 1000 is accepted for the variation; `random_scene` stays within `RANGES`. InputError for a larger
    one, for an attribute that is not among `ATTRIBUTES`, and for a size of 0 or less.
    """

    animal: str = "dog"
    colour: str = "brown"
    accessory: str | None = None
    action: str = "sitting"
    place: str = "beach"
    x: float = 0.0
    """The animal's offset to the right, in pixels of a 128 px picture."""
    y: float = 0.0
    """Its offset downwards, in the same pixels."""
    size: float = 1.0
    """Its scale."""
    facing: str = "right"
    """The side it looks to: "left" or "right"."""
    tilt: float = 0.0
    """Rotation of the head, in degrees."""
    fur_shade: float = 0.0
    """-1 darker to 1 lighter."""
    gaze: float = 0.0
    """-1 to 1: where the pupils are."""
    smile: float = 0.5
    """0 shut to 1 open."""
    background_hue: float = 0.0
    """-1 to 1: turns the background's hues by up to 7 degrees."""
    background_light: float = 0.0
    """-1 darker to 1 lighter."""
    background_shift: float = 0.0
    """-1 to 1: moves some of the background's shapes."""
    background_spread: float = 0.0
    """-1 to 1: moves the others."""

    def __post_init__(self) -> None:
        if isinstance(self.accessory, str) and self.accessory == "none":
            object.__setattr__(self, "accessory", None)
        for name, allowed in (*ATTRIBUTES.items(), ("facing", ("left", "right"))):
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed) and not (name == "accessory" and value is None):
                raise InputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
        for name in (*RANGES, "smile"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not abs(value) <= 1000:  # far larger ones crash the renderer
                raise InputError(f"{name} must be a number from -1000 to 1000, not {value!r}.")
        if self.size <= 0:
            raise InputError(f"size must be above 0, not {self.size!r}.")

    def svg(self) -> str:
        """The picture as an SVG file of 128 x 128 units."""
        return document(draw(self))

    def render(self, size: int = 128) -> Image.Image:
        """The picture as RGB, `size` x `size` pixels. InputError unless 1 <= size <= 8192."""
        return rasterise(self.svg(), size)

    def mask(self, part: str, size: int = 128) -> Image.Image:
        """Where a part is visible: an "L" picture, 255 there, 0 elsewhere, in between along the edges.

        `part` is one of `PARTS`. What is covered (an ear under the hat) does not count as visible. InputError for any
        other part, and for the accessory of a scene that has none.
        """
        if not isinstance(part, str) or part not in PARTS:
            raise InputError(f"part must be one of {', '.join(PARTS)}, not {part!r}.")
        if part == "accessory" and self.accessory is None:
            raise InputError("this scene has no accessory, so there is nothing to mask.")
        groups = {"face": {"face", "eyes"}, "animal": set(PARTS) - {"animal", "background"}}
        return rasterise(silhouette(draw(self), groups.get(part, {part})), size).convert("L")

    def attributes(self) -> dict[str, str]:
        """The five attributes and their values; a missing accessory is "none"."""
        return {name: getattr(self, name) or "none" for name in ATTRIBUTES}

    def caption(self, rng: random.Random | None = None, attributes: Sequence[str] | None = None) -> str:
        """A description in lower case.

        Without arguments it is the plain full one, "a brown dog with glasses sitting on the beach".
        `attributes` says which of the five to mention (the animal always is); `rng` picks among phrasings. InputError
        for another attribute.
        """
        return captions.caption(self.attributes(), rng, attributes)


def random_scene(rng: random.Random, held_out: bool | None = False) -> Scene:
    """Draw a scene: any but the held-out ones (False), only held-out ones (True), or any at all (None).

    InputError unless rng is a random.Random.
    """
    if not isinstance(rng, random.Random):
        raise InputError(f"rng must be a random.Random, such as random.Random(0), not {rng!r}.")
    while True:
        values = {name: rng.choice(allowed) for name, allowed in ATTRIBUTES.items()}
        if held_out is None or is_held_out(values) == held_out:
            break
    defaults = Scene()
    variation = {name: getattr(defaults, name) + rng.uniform(-r, r) for name, r in RANGES.items()}
    drawn: dict[str, Any] = {**values, **variation}
    return Scene(facing=rng.choice(("left", "right")), smile=rng.random(), **drawn)


def training_scene(seed: int, index: int) -> Scene:
    """Scene number `index` of a seed's endless training set: the same whatever was drawn before it."""
    return random_scene(random.Random(f"{seed}-{index}"))

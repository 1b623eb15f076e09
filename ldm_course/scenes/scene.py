"""A scene: a description that renders itself, its masks and its captions; and scenes at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ldm_course.errors import InputError
from ldm_course.scenes import captions
from ldm_course.scenes.description import RANGES, Description
from ldm_course.scenes.drawing import draw
from ldm_course.scenes.held_out import is_held_out
from ldm_course.scenes.svg import document, rasterise, silhouette
from ldm_course.scenes.vocabulary import ATTRIBUTES, PARTS


@dataclass(frozen=True)
class Scene(Description):
    """A `Description` that can be rendered; its fields, their defaults and their errors are the same."""

    def svg(self) -> str:
        """The image as an SVG file of 128 x 128 units."""
        return document(draw(self))

    def render(self, size: int = 128) -> Image.Image:
        """The image as RGB, `size` x `size` pixels. InputError unless 1 <= size <= 8192."""
        return rasterise(self.svg(), size)

    def mask(self, part: str, size: int = 128) -> Image.Image:
        """Where a part is visible: an "L" image, 255 there, 0 elsewhere, in between along the edges.

        `part` is one of `PARTS`. What is covered (an ear under the hat) does not count as visible. InputError for any
        other part, and for the accessory of a scene that has none.
        """
        if not isinstance(part, str) or part not in PARTS:
            raise InputError(f"part must be one of {', '.join(PARTS)}, not {part!r}.")
        if part == "accessory" and self.accessory is None:
            raise InputError("this scene has no accessory, so there is nothing to mask.")
        groups = {"face": {"face", "eyes"}, "animal": set(PARTS) - {"animal", "background"}}
        return rasterise(silhouette(draw(self), groups.get(part, {part})), size).convert("L")

    def caption(self, rng: random.Random | None = None, attributes: Sequence[str] | None = None) -> str:
        """A description in lower case.

        Without arguments it is the plain full one, "a brown dog with glasses sitting on the beach".
        `attributes` says which of the five to mention (the animal always is); `rng` picks among phrasings. InputError
        for another attribute.
        """
        return captions.caption(self.attributes(), rng, attributes)


def random_scene(rng: random.Random, held_out: bool | None = False) -> Scene:
    """A scene at random: any but the held-out ones (False), only held-out ones (True), or any at all (None).

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

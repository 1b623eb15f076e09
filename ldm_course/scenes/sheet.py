"""Contact sheets: many images on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from ldm_course.errors import InputError
from ldm_course.scenes.scene import Scene
from ldm_course.scenes.vocabulary import ATTRIBUTES


def contact_sheet(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Put images of one size in rows of `columns`, `gap` pixels apart, on white."""
    if not images or columns < 1 or gap < 0:
        raise InputError("a contact sheet needs at least one image and one column, and no gap below 0.")
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (gap + i % columns * (width + gap), gap + i // columns * (height + gap)))
    return sheet


def attribute_scenes() -> list[Scene]:
    """Every value of every attribute in four tables, 120 scenes: animal x colour, animal x accessory, and so on.

    In rows of six: the animals side by side; each of the other attributes runs downwards.
    """
    scenes = []
    for name in ("colour", "accessory", "action", "place"):
        for value in ATTRIBUTES[name]:
            for i, animal in enumerate(ATTRIBUTES["animal"]):
                scene = Scene(animal, colour=ATTRIBUTES["colour"][i - 2], place=ATTRIBUTES["place"][i % 5])
                scenes.append(replace(scene, **{name: value}))  # type: ignore[arg-type]
    return scenes

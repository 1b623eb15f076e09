"""What notebook 06 measures: the change outside of a mask, and a body's colour.

Differences are root mean squares over pixels and channels, in units of 1/255 of the range.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from ldm_course.errors import InputError
from ldm_course.scenes import ATTRIBUTES, Scene

FAR = 28  # root mean square, of 255: a pixel farther than this from a colour has another colour


def change_outside(one: Image.Image, other: Image.Image, mask: Image.Image) -> float:
    """The difference of two images where the mask is black. Raises InputError if it is black nowhere."""
    outside = np.asarray(mask.convert("L")) == 0
    if not outside.any():
        raise InputError("The mask covers the whole image; leave a part of it black.")
    return float(np.sqrt(np.square(difference(one, other)[outside]).mean()))


def body_colour(image: Image.Image, scene: Scene, mask: Image.Image) -> str:
    """The colour of the running animal's body under the mask, one of the six in `ATTRIBUTES`.

    Each pixel where the scene's animal, running, has its body votes for the nearest of the six bodies' median
    colours. Pixels far from all of them, such as lines or a green scarf, do not vote.
    """
    running = replace(scene, action="running")
    body = (np.asarray(running.mask("body", image.width)) >= 128) & (np.asarray(mask.convert("L")) >= 128)

    def pixels(image: Image.Image) -> np.ndarray:
        return np.asarray(image, dtype=float)[body]  # (n, 3)

    colours = ATTRIBUTES["colour"]
    medians = np.stack([np.median(pixels(replace(running, colour=c).render(image.width)), axis=0) for c in colours])
    distance = np.sqrt(np.square(pixels(image)[:, None] - medians).mean(axis=2))  # (n, 6)
    votes = distance.argmin(axis=1)[distance.min(axis=1) < FAR]
    return colours[int(np.bincount(votes, minlength=len(colours)).argmax())]


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    """At each pixel and channel, (h, w, 3)."""
    return np.asarray(one, dtype=float) - np.asarray(other, dtype=float)

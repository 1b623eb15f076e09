"""Masks: boxes, regions, parts of a scene, and wider ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course import masks
from ldm_course.scenes import Scene

IMAGE = Image.new("RGB", (64, 48))


def white_box(mask):
    """The box of the white pixels, after making sure that it is filled and the rest is black."""
    pixels = np.asarray(mask)
    left, top, right, bottom = mask.getbbox()
    assert mask.mode == "L" and (pixels[top:bottom, left:right] == 255).all()
    assert pixels.sum() == 255 * (right - left) * (bottom - top)
    return left, top, right, bottom


@pytest.mark.parametrize("box", [(0, 0, 64, 48), (8, 16, 40, 48), (63, 47, 64, 48)])
def test_box(box):
    mask = masks.box_mask((64, 48), box)
    assert mask.size == (64, 48) and white_box(mask) == box


@pytest.mark.parametrize(
    "name, box",
    [
        ("upper-half", (0, 0, 64, 24)),
        ("lower-half", (0, 24, 64, 48)),
        ("left-half", (0, 0, 32, 48)),
        ("right-half", (32, 0, 64, 48)),
        ("centre", (16, 12, 48, 36)),
    ],
)
def test_region(name, box):
    assert white_box(masks.region_mask(name, (64, 48))) == box


@pytest.mark.parametrize(
    "pixels, box", [(0, (24, 24, 40, 40)), (5, (19, 19, 45, 45)), (64, (0, 0, 64, 64))]
)  # and no further than the image
def test_grow(pixels, box):
    assert white_box(masks.grow(masks.box_mask((64, 64), (24, 24, 40, 40)), pixels)) == box


def test_a_scenes_part():
    scene = Scene(accessory="hat")
    image = scene.render(64)
    with one_sentence("'accessory'", "upper-half"):
        masks.scene_mask(image, "accessory")
    image.info[masks.SCENE_KEY] = json.dumps(vars(scene))
    assert masks.scene_mask(image, "accessory") == scene.mask("accessory", 64)


@pytest.mark.parametrize("box", ["8,16,40,48", " 8, 16, 40,\t48"])
def test_a_box_as_text(box):
    assert white_box(masks.mask_of(IMAGE, None, box, None, 0)) == (8, 16, 40, 48)
    assert white_box(masks.mask_of(IMAGE, None, box, None, 3)) == (5, 13, 43, 48)


BOXES = ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", "-8,0,8,8", "0,0,8," + "9" * 5000]
REFUSALS = [  # mask, box, part; a word of the sentence
    *((None, box, None, "LEFT,TOP,RIGHT,BOTTOM") for box in BOXES),
    *((None, box, None, "does not fit") for box in ("0,0,65,8", "0,0,8,49", "8,0,8,8", "0,9,8,8")),
    *((Image.new("L", size, 255), None, None, "one size") for size in ((32, 32), (48, 64))),
    (None, None, None, "exactly one"),
    (Image.new("L", (64, 48), 255), "0,0,8,8", None, "exactly one"),
    (None, "0,0,8,8", "centre", "exactly one"),
]


@pytest.mark.parametrize("mask, box, part, word", REFUSALS)
def test_refusals(mask, box, part, word):
    with one_sentence(word):
        masks.mask_of(IMAGE, mask, box, part, 0)

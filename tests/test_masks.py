"""Masks: boxes, regions, parts of a scene, and wider ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course import masks
from ldm_course.scenes import Scene


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


@pytest.mark.parametrize("box", [(0, 0, 65, 8), (0, 0, 8, 49), (-1, 0, 8, 8), (8, 0, 8, 8), (0, 9, 8, 8)])
def test_box_that_does_not_fit(box):
    with one_sentence("does not fit", "64", "48"):
        masks.box_mask((64, 48), box)


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


def test_no_region():
    with one_sentence("'middle'", "'centre'"):
        masks.region_mask("middle", (64, 48))


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


@pytest.mark.parametrize(
    "stored", ["[" * 100_000, '{"x": 1e999}', '{"x": 1' + "0" * 400 + "}", '{"animal": ["dog"]}', "NaN", "", "[1]",
               '{"animal": "cow"}']
)  # fmt: skip
def test_a_scene_that_cannot_be_read(stored):
    image = Image.new("RGB", (16, 16))
    image.info[masks.SCENE_KEY] = stored
    with one_sentence("cannot be read"):
        masks.scene_mask(image, "face")


@pytest.mark.parametrize("box", ["8,16,40,48", " 8, 16, 40,\t48"])
def test_a_box_as_text(box):
    image = Image.new("RGB", (64, 48))
    assert white_box(masks.mask_of(image, None, box, None, 0)) == (8, 16, 40, 48)
    assert white_box(masks.mask_of(image, None, box, None, 3)) == (5, 13, 43, 48)


@pytest.mark.parametrize("box", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", "-8,0,8,8", "0,0,8," + "9" * 5000])
def test_no_box(box):
    with one_sentence("LEFT,TOP,RIGHT,BOTTOM"):
        masks.mask_of(Image.new("RGB", (64, 48)), None, box, None, 0)


@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_a_mask_of_another_size(size):
    with one_sentence("one size"):
        masks.mask_of(Image.new("RGB", (64, 48)), Image.new("L", size, 255), None, None, 0)


@pytest.mark.parametrize("given", [(None, None, None), (Image.new("L", (64, 48), 255), "0,0,8,8", None),
                                   (None, "0,0,8,8", "centre")])  # fmt: skip
def test_exactly_one_of_three(given):
    with one_sentence("exactly one"):
        masks.mask_of(Image.new("RGB", (64, 48)), *given, 0)

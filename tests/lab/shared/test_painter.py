"""The mask painter's Python side."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.masks import region_mask

IMAGE = Image.new("RGB", (96, 64), "navy")


def test_the_painter_starts_empty_and_returns_the_mask_it_was_given():
    assert MaskPainter(IMAGE).mask_image.getbbox() is None
    soft = Image.linear_gradient("L").resize((96, 64))
    for mask in (region_mask("lower-half", (96, 64)), soft):
        returned = MaskPainter(IMAGE, mask).mask_image
        assert returned.mode == "L" and np.array_equal(np.asarray(returned), np.asarray(mask))


def test_the_painter_refuses_a_mask_of_another_size():
    with one_sentence("64x64", "96x64"):
        MaskPainter(IMAGE).mask_image = Image.new("L", (64, 64), 255)


@pytest.mark.parametrize("name", ["image", "size", "mask", "brush"])
def test_the_page_gets_every_value(name):
    assert name in MaskPainter(IMAGE).keys

"""The mask painter's Python side."""

from __future__ import annotations

import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.masks import region_mask

IMAGE = Image.new("RGB", (96, 64), "navy")


@pytest.mark.parametrize("mask", [region_mask("lower-half", (96, 64)), Image.linear_gradient("L").resize((96, 64))])
def test_the_painter_starts_empty_and_returns_the_mask_it_was_given(mask):
    painter = MaskPainter(IMAGE)
    assert painter.mask_image.getbbox() is None
    assert {"image", "size", "mask", "brush"} <= set(painter.keys), "the page gets every value"
    returned = MaskPainter(IMAGE, mask).mask_image
    assert returned.mode == "L" and returned.tobytes() == mask.tobytes()
    with one_sentence("64x64", "96x64"):
        painter.mask_image = Image.new("L", (64, 64), 255)

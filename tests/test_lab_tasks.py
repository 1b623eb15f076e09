"""What the notebook of in-painting uses: masks, measuring, live repainting. On a tiny model."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course import lab

PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
MASK = lab.box_mask((64, 64), 0, 0.5, 1, 1)


def test_masks_are_drawn_over_pictures():
    drawn = np.asarray(lab.masks.over(PICTURE, MASK)).astype(int)
    assert (drawn[:32] == np.asarray(PICTURE)[:32]).all()
    assert (drawn[32:, :, 0] > drawn[32:, :, 2]).all(), "orange"
    assert lab.masks.cells(PICTURE, MASK, 8).size == (384, 384)
    assert np.asarray(lab.masks.change(PICTURE, PICTURE)).max() == 0


def test_change_is_measured_outside_only():
    other = PICTURE.copy()
    other.paste((255, 0, 0), (0, 32, 64, 64))
    assert lab.masks.change_outside(PICTURE, other, MASK) == 0
    other = Image.fromarray(np.asarray(PICTURE) ^ 1)
    assert lab.masks.change_outside(PICTURE, other, MASK) == pytest.approx(1.0)
    with one_sentence("whole picture"):
        lab.masks.change_outside(PICTURE, other, Image.new("L", (64, 64), 255))


def test_the_studio_follows_mask_prompt_and_seed(model):
    box = lab.masks.studio(lab.masks.Inpainter(model, PICTURE, 3), MASK, "a dog")
    painter, (image, prompt, seed, note) = box.children[0], box.children[1].children
    seen = {image.value}
    painter.mask_image = lab.box_mask((64, 64), 0, 0, 0.5, 1)
    seen.add(image.value)
    prompt.value = "a cat"
    seen.add(image.value)
    seed.value = 4
    seen.add(image.value)
    assert len(seen) == 4 and note.value == ""
    painter.mask = ""
    assert "mask" in note.value.lower() and image.value in seen, "an empty mask is said, and the picture stays"


def test_outside_the_mask_the_studio_changes_nothing(model):
    *_, painted = lab.masks.Inpainter(model, PICTURE, 3)("a dog", MASK, 0)
    assert lab.masks.change_outside(PICTURE, painted, MASK) == 0

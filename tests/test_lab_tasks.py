"""What notebooks of image-to-image and in-painting use: live repainting, measuring, masks. On a tiny model."""

from __future__ import annotations

import io

import ipywidgets
import numpy as np
import pytest
from helpers import one_sentence, pixel_difference
from PIL import Image

import ldm_course as ldm
from ldm_course import lab
from ldm_course.training.judge import Judge

PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
MASK = lab.box_mask((64, 64), 0, 0.5, 1, 1)


def test_the_repainter_paints_what_the_pipeline_paints(model):
    repainter = lab.strength.Repainter(model, PICTURE, 4)
    *between, (start, result) = repainter("a dog", 0.5, 1)
    assert between == [None] * 4, "the start, two steps and the end: at each of them newer work may come first"
    assert start.size == result.size == PICTURE.size and pixel_difference(start, result) > 1
    *_, (start, result) = repainter("a dog", 0.0, 1)
    assert pixel_difference(start, result) == 0, "at strength 0 nothing is done"


def test_the_slider_moves_the_picture(model):
    box = lab.strength.studio(lab.strength.Repainter(model, PICTURE, 4), "a dog")
    strength, prompt, seed, image = box.children
    seen = {image.value}
    for control, value in ((strength, 1.0), (strength, 0.25), (seed, 5), (prompt, "a cat")):
        control.value = value
        seen.add(image.value)
    assert len(seen) == 5 and box.newest.done == 5


def test_outcomes_are_measured(model):
    judge_of_nothing = Judge().eval()
    scenes = [ldm.scenes.Scene(animal="dog"), ldm.scenes.Scene(animal="cat")]
    found = lab.strength.outcomes(model, judge_of_nothing, scenes, [0.0, 1.0], num_inference_steps=2)
    assert found.distance.shape == found.asked.shape == found.kept.shape == (2, 2)
    assert ((0 <= found.kept) & (found.kept <= 1)).all()
    assert len(lab.strength.freedom([0.0, 1.0], found).axes) == 2


@pytest.mark.parametrize("version", [7, 8])
def test_a_picture_can_be_chosen(version):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(file, format="png")
    files = {
        7: {"a.png": {"content": file.getvalue()}},
        8: ({"name": "a.png", "content": memoryview(file.getvalue())},),
    }
    assert lab.strength.uploaded(Chosen(files[version]), PICTURE).size == (30, 20)
    assert lab.strength.uploaded(ipywidgets.FileUpload(), PICTURE) is PICTURE
    with one_sentence("not a picture"):
        lab.strength.uploaded(Chosen({"a.txt": {"content": b"words"}}), PICTURE)


class Chosen:
    """Stands in for an upload button in which a file was chosen."""

    def __init__(self, value):
        self.value = value


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

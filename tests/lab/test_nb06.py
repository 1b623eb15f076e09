"""Notebook 06: the functions that it defines, its measures, its overlay and its studio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import noise, one_sentence, pixel_difference
from lab_helpers import GRADIENT, definitions, exercises, judge
from PIL import Image, ImageFilter
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course import lab, pipelines
from ldm_course.lab import nb06_inpainting as nb
from ldm_course.masks import box_mask, region_mask

NAME = "06_inpainting"
MASK = region_mask("lower-half", (64, 64))
BLACK, WHITE = Image.new("L", (64, 64)), Image.new("L", (64, 64), 255)


def test_the_hook_is_run_by_the_real_loop(model):
    verdict = judge(NAME, "hook", exercises(NAME)["hook"][1], model)
    assert "called your hook 4 times" in verdict.message, verdict
    assert pixel_difference(*verdict.images) == 0


def test_inpaint_by_hand_equals_the_package(model):
    defined, generator = definitions(NAME, lower=None), torch.Generator().manual_seed(3)
    draw, fresh = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    z, m = model.encode(ldm.images.to_tensor(GRADIENT), draw), ldm.images.latent_mask(MASK, 8)
    empty, context = model.embed(["", "a dog"]).chunk(2)
    mine = defined["inpaint_by_hand"](model, z, fresh, m, context, empty, model.schedule.timesteps(5), 3.0)
    theirs = ldm.inpaint(model, "a dog", GRADIENT, MASK, num_inference_steps=5, guidance_scale=3.0, seed=3)
    assert pixel_difference(lab.plots.decoded(model, mine), theirs) <= 1
    for alpha_bar in (0.1, 1.0):
        arguments = (*(noise(2, 4, 8, 8, seed=seed) for seed in range(3)), m, alpha_bar)
        assert_close(defined["keep_known_region"](*arguments), pipelines.keep_known_region(*arguments))


# ---- measures and the overlay ----------------------------------------------------------------------------------


def test_the_mask_is_laid_over_its_region_only():
    drawn = np.asarray(nb.figures.overlay_mask(GRADIENT, MASK)).astype(int)
    assert (drawn[:32] == np.asarray(GRADIENT)[:32]).all()
    assert (drawn[32:, :, 0] > drawn[32:, :, 2]).all(), "orange"


def test_change_outside_and_inside():
    other = GRADIENT.copy()
    other.paste((255, 0, 0), (0, 32, 64, 64))
    assert nb.measures.change_outside(GRADIENT, other, MASK) == 0
    other = Image.fromarray(np.asarray(GRADIENT) ^ 1)
    assert nb.measures.change_outside(GRADIENT, other, MASK) == pytest.approx(1.0)
    assert nb.measures.change_inside(GRADIENT, other, MASK) == pytest.approx(1.0)
    with pytest.raises(ldm.InputError, match="black everywhere"):
        nb.measures.change_inside(GRADIENT, other, BLACK)
    with one_sentence("whole image"):
        nb.measures.change_outside(GRADIENT, other, WHITE)


def test_change_by_distance():
    other = np.asarray(GRADIENT).astype(int)
    other[24:32] += 3  # the ring next to the mask
    other[:8] += 5
    rings = nb.measures.change_by_distance(GRADIENT, Image.fromarray(other.astype(np.uint8)), MASK, 8)
    assert rings == pytest.approx([3, 0, 0, 5])


def test_seam():
    grey, lighter = (Image.new("RGB", (64, 64), (level, level, level)) for level in (100, 110))
    assert nb.measures.seam(grey, MASK) == 0
    assert nb.measures.seam(Image.composite(lighter, grey, MASK), MASK) == pytest.approx(10)
    soft = MASK.filter(ImageFilter.GaussianBlur(3))
    assert nb.measures.seam(Image.composite(lighter, grey, soft), MASK) < 5
    with one_sentence("no edge"):
        nb.measures.seam(grey, WHITE)


@pytest.mark.parametrize("accessory", [None, "scarf"])  # a scarf covers much of the body
@pytest.mark.parametrize("colour", ldm.scenes.ATTRIBUTES["colour"])
def test_body_colour(colour, accessory):
    dog = ldm.scenes.Scene(animal="dog", colour="white", action="running", place="forest")
    drawn = replace(dog, colour=colour, accessory=accessory, fur_shade=0.7).render(128)
    assert nb.measures.body_colour(drawn, dog, box_mask((128, 128), (0, 72, 128, 128))) == colour


# ---- the studio ------------------------------------------------------------------------------------------------


def test_panel_follows_mask_prompt_and_seed(model):
    painter = lab.MaskPainter(GRADIENT, MASK)
    box = nb.studio.panel(nb.studio.Sampler(model, GRADIENT, 3), painter, "a dog")
    image, prompt, seed, note = box.children[1].children
    seen, left = {image.value}, region_mask("left-half", (64, 64))
    for control, name, value in ((painter, "mask_image", left), (prompt, "value", "a cat"), (seed, "value", 4)):
        setattr(control, name, value)
        seen.add(image.value)
    assert len(seen) == 4 and note.value == ""
    painter.mask = ""
    assert "mask" in note.value.lower() and image.value in seen, "an empty mask gives a message, and the image stays"


def test_sampler_changes_nothing_outside_the_mask(model):
    *_, result = nb.studio.Sampler(model, GRADIENT, 3)("a dog", MASK, 0)
    assert nb.measures.change_outside(GRADIENT, result, MASK) == 0
    assert nb.measures.change_inside(GRADIENT, result, MASK) > 1

"""Notebook 06: its typical wrong answers, what it defines, what it measures and draws. On a tiny model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import noise, one_sentence, pixel_difference
from PIL import Image, ImageFilter
from test_notebooks import assert_hint, cells, each_mistake, exercises, judge, python, run

import ldm_course as ldm
from ldm_course import lab, pipelines

NAME = "06_inpainting"
KNOWN = "known = alpha_bar**0.5 * z + (1 - alpha_bar) ** 0.5 * noise\n    "
HOOK = "return lambda x, t_prev: ldm.pipelines.keep_outside({})"
LEVEL = "model.schedule.alpha_bar(t_prev) if t_prev >= 0 else 1.0"

# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "cells": [
        ("return mask[..., ::8, ::8]", "Grey stays grey"),
        ("return (torch.nn.functional.avg_pool2d(mask, 8) >= 0.5).float()", "the mean"),
        ("return (torch.nn.functional.max_pool2d(mask, 8) >= 0.5).float()", "if any"),
        ("return (mask[..., ::8, ::8] < 0.5).float()", "wrong way round"),
        ("return (mask[..., 4::8, 4::8] >= 0.5).float()", "the middle"),
        ("return (mask >= 0.5).float()", "each pixel"),
    ],
    "keep-outside": [
        (KNOWN + "return torch.where(m == 1, known, x)", "swapped"),
        ("return torch.where(m == 1, x, z)", "clean latent"),
        ("return torch.where(m == 1, x, z + noise)", "full weight"),
        (
            "return torch.where(m == 1, x, (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise)",
            "weights are swapped",
        ),
        ("return torch.where(m == 1, x, alpha_bar * z + (1 - alpha_bar) * noise)", "square roots"),
        (KNOWN + "return x + (1 - m) * known", "replacing x"),
        ("return m * x", "nothing outside"),
        ("return x", "leaves x as it is"),
    ],
    "hook": [
        (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(t_prev)"), "At the end"),
        (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(max(t_prev, 0))"), "At the end"),
        (HOOK.format("x, z, noise, m, 1.0"), "clean latent"),
        (HOOK.format("x, z, noise, m, 0.0"), "nothing but noise"),
        (HOOK.format("x, z, noise, 1 - m, " + LEVEL), "Inside and outside"),
        (HOOK.format("x, noise, z, m, " + LEVEL), "z and noise"),
        ("return lambda x, t_prev: x", "nothing is put back"),
        ("return lambda x, t_prev: None", "returns nothing"),
        ("return ldm.pipelines.keep_outside(z, z, noise, m, 1.0)", "a function of x and t_prev"),
    ],
    "composite": [
        ("return (1 - mask) * new + mask * old", "swapped"),
        ("return torch.where(mask >= 0.5, new, old)", "cuts hard"),
        ("return mask * new", "black"),
        ("return mask * new + old", "1 - mask"),
    ],
}


@each_mistake(WRONG)
def test_a_typical_mistake_gets_a_hint_that_names_it(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


def test_the_hook_is_run_by_the_real_loop(model):
    verdict = judge(*exercises(NAME)["hook"], model)
    assert "The loop called your hook 4 times and painted the same picture." in verdict.message, verdict
    one, other = verdict.pictures
    assert pixel_difference(one, other) == 0


PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
MASK = lab.box_mask((64, 64), 0, 0.5, 1, 1)


def test_by_hand_it_is_the_package_s(model):
    namespace = {"torch": torch, "ldm": ldm, "model": model, "picture": PICTURE, "mask": MASK, "SEED": 3}
    for cell in cells(NAME, "code"):
        if cell.id in ("keep", "hand"):
            run(python(cell), namespace)
        if cell.id == "encode":
            run(python(cell).split("latents = ")[0], namespace)
    z, noisy, m = (namespace[name] for name in ("z", "noise", "m"))
    empty, context = ldm.encode_prompt(model, ["", "a dog"]).chunk(2)
    mine = namespace["inpaint_by_hand"](model, z, noisy, m, context, empty, model.schedule.timesteps(5), 3.0)
    theirs = ldm.inpaint(model, "a dog", PICTURE, MASK, num_inference_steps=5, guidance_scale=3.0, seed=3)
    assert pixel_difference(lab.plots.decoded(model, mine), theirs) <= 1
    for alpha_bar in (0.1, 1.0):
        arguments = (noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1), noise(2, 4, 8, 8, seed=2), m, alpha_bar)
        assert torch.allclose(namespace["keep_outside"](*arguments), pipelines.keep_outside(*arguments), atol=1e-6)


# ---- what it draws and measures --------------------------------------------------------------------------------


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
    assert lab.masks.change_inside(PICTURE, other, MASK) == pytest.approx(1.0)
    with pytest.raises(ldm.InputError, match="black everywhere"):
        lab.masks.change_inside(PICTURE, other, Image.new("L", (64, 64)))
    with one_sentence("whole picture"):
        lab.masks.change_outside(PICTURE, other, Image.new("L", (64, 64), 255))


def test_change_is_measured_in_rings_around_the_mask():
    other = np.asarray(PICTURE).astype(int)
    other[24:32] += 3  # the ring next to the mask
    other[:8] += 5
    rings = lab.masks.change_by_distance(PICTURE, Image.fromarray(other.astype(np.uint8)), MASK, 8)
    assert rings == pytest.approx([3, 0, 0, 5])
    assert lab.masks.fading({"VAE": [rings, rings], "loop": [rings, rings]}, 8).axes


def test_a_seam_is_the_step_across_the_edge():
    grey, lighter = (Image.new("RGB", (64, 64), (level, level, level)) for level in (100, 110))
    assert lab.masks.seam(grey, MASK) == 0
    assert lab.masks.seam(Image.composite(lighter, grey, MASK), MASK) == pytest.approx(10)
    soft = MASK.filter(ImageFilter.GaussianBlur(3))
    assert lab.masks.seam(Image.composite(lighter, grey, soft), MASK) < 5
    with one_sentence("no edge"):
        lab.masks.seam(grey, Image.new("L", (64, 64), 255))


@pytest.mark.parametrize("accessory", [None, "scarf"])
@pytest.mark.parametrize("colour", ldm.scenes.ATTRIBUTES["colour"])
def test_the_colour_of_a_body_is_read(colour, accessory):
    """A scarf covers much of the body."""
    dog = ldm.scenes.Scene(animal="dog", colour="white", action="running", place="forest")
    mask = lab.box_mask((128, 128), 0, 9 / 16, 1, 1)
    drawn = replace(dog, colour=colour, accessory=accessory, fur_shade=0.7)
    assert lab.masks.body_colour(drawn.render(128), dog, mask) == colour


# ---- the studio ------------------------------------------------------------------------------------------------


def test_the_studio_follows_mask_prompt_and_seed(model):
    painter = lab.MaskPainter(PICTURE, MASK)
    box = lab.masks.studio(lab.masks.Inpainter(model, PICTURE, 3), painter, "a dog")
    image, prompt, seed, note = box.children[1].children
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

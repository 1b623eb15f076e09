"""Notebook 06: typical wrong answers, the functions that it defines, its measures, figures and studio."""

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
from ldm_course.lab import nb06_inpainting as nb
from ldm_course.masks import box_mask, region_mask

NAME = "06_inpainting"
KNOWN = "known = alpha_bar**0.5 * z + (1 - alpha_bar) ** 0.5 * noise\n    "
HOOK = "return lambda x, t_prev: ldm.pipelines.keep_known_region({})"
LEVEL = "model.schedule.alpha_bar(t_prev) if t_prev >= 0 else 1.0"

# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "cells": [
        ("return mask[..., ::8, ::8]", "Grey values stay grey"),
        ("return (torch.nn.functional.avg_pool2d(mask, 8) >= 0.5).float()", "The mean"),
        ("return (torch.nn.functional.max_pool2d(mask, 8) >= 0.5).float()", "if any of its pixels"),
        ("return (mask[..., ::8, ::8] < 0.5).float()", "Zeros and ones are swapped"),
        ("return (mask[..., 4::8, 4::8] >= 0.5).float()", "in the middle"),
        ("return (mask >= 0.5).float()", "for each pixel"),
    ],
    "keep-known-region": [
        (KNOWN + "return torch.where(m == 1, known, x)", "Inside and outside"),
        ("return torch.where(m == 1, x, z)", "clean latent"),
        ("return torch.where(m == 1, x, z + noise)", "full weight"),
        (
            "return torch.where(m == 1, x, (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise)",
            "weights are swapped",
        ),
        ("return torch.where(m == 1, x, alpha_bar * z + (1 - alpha_bar) * noise)", "square roots"),
        (KNOWN + "return x + (1 - m) * known", "Replace x there"),
        ("return m * x", "is 0 outside"),
        ("return x", "returns x unchanged"),
    ],
    "hook": [
        (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(t_prev)"), "At the end"),
        (HOOK.format("x, z, noise, m, model.schedule.alpha_bar(max(t_prev, 0))"), "At the end"),
        (HOOK.format("x, z, noise, m, 1.0"), "clean latent"),
        (HOOK.format("x, z, noise, m, 0.0"), "only noise"),
        (HOOK.format("x, z, noise, 1 - m, " + LEVEL), "Inside and outside"),
        (HOOK.format("x, noise, z, m, " + LEVEL), "z and noise are swapped"),
        ("return lambda x, t_prev: x", "returns x unchanged"),
        ("return lambda x, t_prev: None", "returns nothing"),
        ("return ldm.pipelines.keep_known_region(z, z, noise, m, 1.0)", "a function of x and t_prev"),
    ],
    "composite": [
        ("return (1 - mask) * new + mask * old", "New and old are swapped"),
        ("return torch.where(mask >= 0.5, new, old)", "cuts the mask"),
        ("return mask * new", "black"),
        ("return mask * new + old", "full weight everywhere"),
    ],
}


@each_mistake(WRONG)
def test_a_typical_mistake_gets_its_hint(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


def test_the_hook_is_run_by_the_real_loop(model):
    verdict = judge(*exercises(NAME)["hook"], model)
    assert "The loop called your hook 4 times and generated the same image." in verdict.message, verdict
    one, other = verdict.images
    assert pixel_difference(one, other) == 0


IMAGE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
MASK = region_mask("lower-half", (64, 64))


def test_inpaint_by_hand_equals_the_package(model):
    namespace = {"torch": torch, "ldm": ldm, "model": model, "picture": IMAGE, "mask": MASK, "SEED": 3}
    for cell in cells(NAME, "code"):
        if cell.id in ("keep", "hand"):
            run(python(cell), namespace)
        if cell.id == "encode":
            run(python(cell).split("latents = ")[0], namespace)
    z, noisy, m = (namespace[name] for name in ("z", "noise", "m"))
    empty, context = model.embed(["", "a dog"]).chunk(2)
    mine = namespace["inpaint_by_hand"](model, z, noisy, m, context, empty, model.schedule.timesteps(5), 3.0)
    theirs = ldm.inpaint(model, "a dog", IMAGE, MASK, num_inference_steps=5, guidance_scale=3.0, seed=3)
    assert pixel_difference(lab.plots.decoded(model, mine), theirs) <= 1
    for alpha_bar in (0.1, 1.0):
        arguments = (noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1), noise(2, 4, 8, 8, seed=2), m, alpha_bar)
        assert torch.allclose(
            namespace["keep_known_region"](*arguments), pipelines.keep_known_region(*arguments), atol=1e-6
        )


# ---- figures and measures -------------------------------------------------------------------------------------


def test_overlays_and_differences():
    drawn = np.asarray(nb.figures.overlay_mask(IMAGE, MASK)).astype(int)
    assert (drawn[:32] == np.asarray(IMAGE)[:32]).all()
    assert (drawn[32:, :, 0] > drawn[32:, :, 2]).all(), "orange"
    assert nb.figures.overlay_latent_mask(IMAGE, MASK, 8).size == (384, 384)
    assert np.asarray(nb.figures.difference_image(IMAGE, IMAGE)).max() == 0


def test_change_outside_and_inside():
    other = IMAGE.copy()
    other.paste((255, 0, 0), (0, 32, 64, 64))
    assert nb.measures.change_outside(IMAGE, other, MASK) == 0
    other = Image.fromarray(np.asarray(IMAGE) ^ 1)
    assert nb.measures.change_outside(IMAGE, other, MASK) == pytest.approx(1.0)
    assert nb.measures.change_inside(IMAGE, other, MASK) == pytest.approx(1.0)
    with pytest.raises(ldm.InputError, match="black everywhere"):
        nb.measures.change_inside(IMAGE, other, Image.new("L", (64, 64)))
    with one_sentence("whole image"):
        nb.measures.change_outside(IMAGE, other, Image.new("L", (64, 64), 255))


def test_change_by_distance_and_its_plot():
    other = np.asarray(IMAGE).astype(int)
    other[24:32] += 3  # the ring next to the mask
    other[:8] += 5
    rings = nb.measures.change_by_distance(IMAGE, Image.fromarray(other.astype(np.uint8)), MASK, 8)
    assert rings == pytest.approx([3, 0, 0, 5])
    assert nb.figures.plot_change_by_distance({"VAE": [rings, rings], "loop": [rings, rings]}, 8).axes


def test_seam():
    grey, lighter = (Image.new("RGB", (64, 64), (level, level, level)) for level in (100, 110))
    assert nb.measures.seam(grey, MASK) == 0
    assert nb.measures.seam(Image.composite(lighter, grey, MASK), MASK) == pytest.approx(10)
    soft = MASK.filter(ImageFilter.GaussianBlur(3))
    assert nb.measures.seam(Image.composite(lighter, grey, soft), MASK) < 5
    with one_sentence("no edge"):
        nb.measures.seam(grey, Image.new("L", (64, 64), 255))


@pytest.mark.parametrize("accessory", [None, "scarf"])
@pytest.mark.parametrize("colour", ldm.scenes.ATTRIBUTES["colour"])
def test_body_colour(colour, accessory):
    """A scarf covers much of the body."""
    dog = ldm.scenes.Scene(animal="dog", colour="white", action="running", place="forest")
    mask = box_mask((128, 128), (0, 72, 128, 128))
    drawn = replace(dog, colour=colour, accessory=accessory, fur_shade=0.7)
    assert nb.measures.body_colour(drawn.render(128), dog, mask) == colour


# ---- the studio ------------------------------------------------------------------------------------------------


def test_panel_follows_mask_prompt_and_seed(model):
    painter = lab.MaskPainter(IMAGE, MASK)
    box = nb.studio.panel(nb.studio.Sampler(model, IMAGE, 3), painter, "a dog")
    image, prompt, seed, note = box.children[1].children
    seen = {image.value}
    painter.mask_image = region_mask("left-half", (64, 64))
    seen.add(image.value)
    prompt.value = "a cat"
    seen.add(image.value)
    seed.value = 4
    seen.add(image.value)
    assert len(seen) == 4 and note.value == ""
    painter.mask = ""
    assert "mask" in note.value.lower() and image.value in seen, "an empty mask gives a message, and the image stays"


def test_sampler_changes_nothing_outside_the_mask(model):
    *_, result = nb.studio.Sampler(model, IMAGE, 3)("a dog", MASK, 0)
    assert nb.measures.change_outside(IMAGE, result, MASK) == 0

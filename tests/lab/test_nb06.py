"""Notebook 06: its exercises in the loop, its measures, its figures and its studio."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import one_sentence, pixel_difference
from lab_helpers import GRADIENT, exercises, judge, solution
from PIL import Image
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab import nb06_inpainting as nb
from ldm_course.masks import box_mask, region_mask

NAME = "06_inpainting"
MASK = region_mask("lower-half", (64, 64))
BLACK, WHITE = Image.new("L", (64, 64)), Image.new("L", (64, 64), 255)


def test_the_hook_is_run_by_the_real_loop(model):
    verdict = judge(NAME, "hook", exercises(NAME)["hook"][1], model)
    assert "called your hook 4 times" in verdict.message, verdict
    assert pixel_difference(*verdict.images) == 0


def test_a_hook_that_fails_only_in_the_loop(model):
    source = exercises(NAME)["hook"][1].replace(
        "        alpha_bar =", "        assert t_prev != 501, 'here'\n        alpha_bar ="
    )
    verdict = judge(NAME, "hook", source, model)
    assert verdict.status == "wrong" and "In the loop it raised AssertionError: here" in verdict.message, verdict


def test_the_letters_of_the_broken_lines():
    right = solution(NAME, "culprits")
    assert right() == nb.checks.shuffled()


@pytest.mark.parametrize("last", ["rounds", "rounds if t_prev >= 0 else 1"])
def test_rounds_at_the_last_step_are_fine(model, last):
    source = exercises(NAME)["repaint"][1].replace("rounds if t_prev >= 0 else 1", last)
    assert judge(NAME, "repaint", source, model).status == "right"


def test_rounds_that_go_on_with_the_package_s(model):
    """The cells below an unsolved build run on the answer."""
    answer = nb.checks.repaint(lambda *args: ...).answer
    generator, m = torch.Generator().manual_seed(0), ldm.images.latent_mask(MASK, 8)
    z = model.encode(ldm.images.to_tensor(GRADIENT))
    context = model.embed(["a dog"])

    @torch.no_grad()
    def predict(x, t):
        return model.unet(x, t, context)

    arguments = (predict, model.schedule.alpha_bar, model.schedule.timesteps(3), 2, z, m)
    x = answer(*arguments, lambda: torch.randn(z.shape, generator=generator))
    assert_close(x * (1 - m), z * (1 - m))


# ---- measures and the overlay ----------------------------------------------------------------------------------


def test_the_mask_is_laid_over_its_region_only():
    drawn = np.asarray(nb.figures.overlay_mask(GRADIENT, MASK)).astype(int)
    assert (drawn[:32] == np.asarray(GRADIENT)[:32]).all()
    assert (drawn[32:, :, 0] > drawn[32:, :, 2]).all(), "orange"


def test_cells_are_laid_over_the_image():
    cells = torch.zeros(1, 1, 8, 8)
    cells[..., 4:, :] = 1
    drawn = np.asarray(nb.figures.overlay_cells(GRADIENT, cells)).astype(int)
    assert (drawn[10:-10, :, 0] > drawn[10:-10, :, 2])[len(drawn) // 2 :].mean() > 0.9, "orange"


def test_figures_of_changes_and_remedies():
    results = {"same": GRADIENT, "other": Image.composite(BLACK.convert("RGB"), GRADIENT, MASK)}
    titles = [axes.get_title() for axes in nb.figures.known_changes(GRADIENT, results, MASK).axes]
    assert titles == ["same: 0.0 of 255", "other: 0.0 of 255"]
    counts = {"a": (3, 5), "b": (4, 6), "c": (8, 8), "d": (8, 7)}
    (axes,) = nb.figures.remedies(counts, 8, joined=2).axes
    assert {text.get_text() for text in axes.texts} == {*counts, "ideal"}


def test_change_outside():
    other = GRADIENT.copy()
    other.paste((255, 0, 0), (0, 32, 64, 64))
    assert nb.measures.change_outside(GRADIENT, other, MASK) == 0
    other = Image.fromarray(np.asarray(GRADIENT) ^ 1)
    assert nb.measures.change_outside(GRADIENT, other, MASK) == pytest.approx(1.0)
    with one_sentence("whole image"):
        nb.measures.change_outside(GRADIENT, other, WHITE)


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


def test_sampler_generates_the_pipeline_s_image(model):
    *_, result = nb.studio.Sampler(model, GRADIENT, 3)("a dog", MASK, 5)
    options = {"num_inference_steps": 3, "guidance_scale": nb.studio.GUIDANCE, "seed": 5, "composite": True}
    assert pixel_difference(result, ldm.inpaint(model, "a dog", GRADIENT, MASK, **options)) <= 1


def test_sampler_changes_nothing_outside_the_mask(model):
    *_, result = nb.studio.Sampler(model, GRADIENT, 3)("a dog", MASK, 0)
    assert nb.measures.change_outside(GRADIENT, result, MASK) == 0
    assert pixel_difference(GRADIENT, result) > 1

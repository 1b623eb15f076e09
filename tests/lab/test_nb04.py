"""Notebook 04: its definitions, its small CLIP, its figures, its broken loops and its studio."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import noise, one_sentence, pixel_difference
from lab_helpers import definitions, until
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

import ldm_course as ldm
from ldm_course.lab import nb04_txt2img as nb
from ldm_course.lab.nb04_txt2img.clip import LENGTH, Pairs, SmallCLIP
from ldm_course.lab.shared import plots
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import SAMPLERS


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions("04_txt2img")


@pytest.fixture(scope="module")
def shipped() -> LatentDiffusion:
    return ldm.load(device="cpu")


# ---- what the notebook defines ---------------------------------------------------------------------------------


def test_contrastive_loss_equals_transformers(defined):
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    text = {**tower, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 29}
    vision = {**tower, "image_size": 16, "patch_size": 8}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    tokens = torch.cat([torch.arange(1, 26).reshape(5, 5), torch.full((5, 1), 29)], dim=1)
    answer = clip(input_ids=tokens, pixel_values=noise(5, 3, 16, 16), return_loss=True)
    ours = defined["contrastive_loss"](answer.image_embeds, answer.text_embeds, clip.logit_scale.exp())
    assert_close(ours, answer.loss)


# ---- the small CLIP --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(shipped) -> Pairs:
    return nb.clip.small_pairs(shipped.tokenizer, 40, seed=3)


@pytest.fixture
def clip(shipped) -> SmallCLIP:
    torch.manual_seed(0)
    return SmallCLIP(len(shipped.tokenizer), shipped.tokenizer.eos_token_id)


def test_small_pairs_have_captions_that_fit_and_repeat(pairs, shipped):
    assert pairs.x.shape == (40, 3, 32, 32) and pairs.tokens.shape == (40, LENGTH)
    for caption, (animal, colour, place) in zip(pairs.captions, pairs.labels):
        assert colour in caption and any(word in caption for word in ldm.scenes.captions.ANIMALS[animal])
        assert any(phrase in caption for phrase in ldm.scenes.captions.PLACES[place])
    assert (pairs.tokens[:, -1] == shipped.tokenizer.eos_token_id).all(), "no caption is cut"
    again = nb.clip.small_pairs(shipped.tokenizer, 40, seed=3)
    assert again.captions == pairs.captions and torch.equal(again.tokens, pairs.tokens)


def test_sample_distinct_returns_each_label_once(pairs):
    different = len(set(pairs.labels))
    assert len({pairs.labels[i] for i in pairs.sample_distinct(different, random.Random(0))}) == different
    with one_sentence(str(different), str(different + 1)):
        pairs.sample_distinct(different + 1, random.Random(0))


def test_small_clip_returns_unit_vectors_and_ignores_padding(pairs, clip):
    image, text = clip.encode_image(pairs.x), clip.encode_text(pairs.tokens)
    assert image.shape == text.shape == (40, 64)
    assert_close((image.norm(dim=1), text.norm(dim=1)), (torch.ones(40), torch.ones(40)))
    assert_close(clip.encode_text(pairs.tokens[:, : LENGTH - 6]), text)


# ---- figures ---------------------------------------------------------------------------------------------------


def test_strength_map_is_white_at_zero_and_orange_at_the_largest():
    difference = torch.zeros(4, 2, 2)
    difference[1, 0, 1] = -3.0
    image = nb.figures.strength_map(difference)
    assert image.getpixel((0, 0)) == plots.MIDDLE and image.getpixel((image.width - 1, 0)) == plots.HIGH


def test_plots_say_what_they_are_given():
    bars = nb.figures.plot_places({"s = 1": ["snow", "room"], "s = 12": ["snow", "snow"]}).axes[0]
    assert {text.get_text() for text in bars.texts} == {"snow\n1", "room\n1", "2"}
    lines = nb.figures.plot_swap([801, 401], {"place": [0.0, 1.0], "animal": [0.0, 0.5]}).axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0.0, 1.0], [0.0, 0.5]]


# ---- the broken loops ------------------------------------------------------------------------------------------


def test_every_bug_changes_the_image_and_has_a_number_of_its_own(model):
    right = nb.broken.image(model, None)
    settings = {"seed": nb.broken.SEED, "num_inference_steps": 20, "guidance_scale": 4.0}
    assert pixel_difference(right, ldm.txt2img(model, "a dog with glasses", **settings)) <= 1
    assert len({bug.number for bug in nb.broken.BUGS.values()}) == len(nb.broken.BUGS)
    assert all(pixel_difference(nb.broken.image(model, letter), right) > 1 for letter in nb.broken.BUGS)


# ---- the studio ------------------------------------------------------------------------------------------------

SETTINGS = {"seed": 3, "steps": 4, "scheduler": "dpm++", "guidance": 3.0}


@pytest.mark.parametrize("scheduler", sorted(SAMPLERS))
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_sampler_equals_txt2img(model, scheduler, guidance):
    ours = nb.studio.Sampler(model).image("a dog", **{**SETTINGS, "scheduler": scheduler, "guidance": guidance})
    theirs = ldm.txt2img(model, "a dog", seed=3, num_inference_steps=4, scheduler=scheduler, guidance_scale=guidance)
    assert pixel_difference(ours, theirs) <= 1


def test_sampler_yields_previews(model):
    yielded = list(nb.studio.Sampler(model)("a dog", **{**SETTINGS, "steps": 7}))
    assert [image is not None for image in yielded] == [False, False, True, False, False, True, False, True]


def test_panel_follows_every_control(model):
    box = nb.studio.panel(nb.studio.Sampler(model), "a dog")
    (prompt, seed_row, steps, scheduler, guidance, _), image = box.children[0].children, box.children[1]
    seed, next_seed = seed_row.children
    steps.value = 4
    seen = {image.value}
    for control, value in ((prompt, "a cat"), (seed, 5), (steps, 2), (scheduler, "ddpm"), (guidance, 0.0)):
        control.value = value
        seen.add(image.value)
    next_seed.click()
    seen.add(image.value)
    assert seed.value == 6 and len(seen) == 7 and box.newest.done == 8


def test_panel_shows_warnings_about_the_prompt(model):
    sampler = nb.studio.Sampler(replace(model, known_words=frozenset({"a", "dog"})))
    box = nb.studio.panel(sampler, "a dog with glasses")
    prompt, note = box.children[0].children[0], box.children[0].children[-1]
    for value, warned in (("a dog", False), ("a dog with glasses", True)):
        prompt.value = value
        assert ("'glasses'" in note.value) == warned, "also for a prompt that was embedded before"


def test_newer_settings_cancel_older_work(model):
    async def hurry():
        box = nb.studio.panel(nb.studio.Sampler(model), "a dog")
        steps, image = box.children[0].children[2], box.children[1]
        for value in (40, 41, 3):
            before = image.value
            await until(lambda before=before: image.value != before)  # a preview has come
            steps.value = value
        await until(lambda: box.newest.done)
        return box.newest

    newest = asyncio.run(hurry())
    assert newest.done == 1 and newest.cancelled == 3 and newest.value["steps"] == 3


def test_every_suggestion_is_in_the_model_s_words(shipped):
    warning = nb.studio.Sampler(shipped).warning
    assert "zebra" in warning("a zebra") and not any(map(warning, nb.studio.SUGGESTIONS))

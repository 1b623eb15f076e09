"""Notebook 04: its definitions, its small CLIP, its measures and its studio."""

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
from ldm_course import sampling
from ldm_course.lab import nb04_txt2img as nb
from ldm_course.lab.nb04_txt2img.clip import LENGTH, Pairs, SmallCLIP
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import SAMPLERS


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions("04_txt2img")


@pytest.fixture(scope="module")
def shipped() -> LatentDiffusion:
    return ldm.load(device="cpu")


# ---- what the notebook defines ---------------------------------------------------------------------------------


def test_guide_and_denoise_by_hand_equal_the_package(defined, model):
    for scale in (0.0, 1.0, 7.5):
        predictions = noise(2, 4), noise(2, 4, seed=1)
        assert_close(defined["guide"](*predictions, scale), sampling.guide(*predictions, scale))
    context, empty = model.embed(["a dog", ""]).chunk(2)
    x_T, timesteps = noise(1, 4, 8, 8), model.schedule.timesteps(7)
    *_, last = ldm.denoise(model, x_T, context, timesteps, negative_context=empty, guidance_scale=3.0)
    mine = defined["denoise_by_hand"](model, x_T, context, empty, timesteps, 3.0)
    assert_close(mine, last.x_t, rtol=1e-4, atol=1e-4)


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


def test_shipped_clip_holds_the_shipped_text_encoder(shipped):
    tokens = ldm.text.tokenize(shipped.tokenizer, ["a dog with glasses", ""])
    with torch.no_grad():
        ours, whole = shipped.text_encoder(tokens), nb.clip.shipped_clip().text_model(tokens)
    assert_close(ours.last_hidden_state, whole.last_hidden_state)
    assert_close(ours.pooler_output, whole.pooler_output)


# ---- measures --------------------------------------------------------------------------------------------------


def test_measures_of_known_values():
    labels = [("dog", "white", "snow"), ("cat", "white", "snow"), ("cat", "pink", "room")]
    similarity = torch.eye(3)[[1, 0, 2]]  # the first two images are nearest to each other's captions
    expected = {"animal": 1 / 3, "colour": 1, "place": 1, "all": 1 / 3}
    assert nb.clip.retrieval_accuracy(similarity, labels) == expected
    x = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    assert_close(nb.figures.distance_from_mean(x), torch.tensor([0.5, 0.0, 0.5]))
    attributes = [{"animal": "dog", "place": place} for place in ("snow", "snow", "room")]
    assert_close(nb.figures.disagreement(attributes, ["place"]), torch.tensor([0.5, 0.5, 1.0]))
    assert_close(nb.figures.disagreement(attributes, ["animal", "place"]), torch.tensor([0.25, 0.25, 0.5]))


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

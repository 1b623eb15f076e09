"""Notebook 04: typical wrong answers, the functions that it defines, its small CLIP, measurements and studio."""

from __future__ import annotations

import ast
import asyncio
import random
from dataclasses import replace
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import noise, one_sentence, pixel_difference
from lab_helpers import until
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, exercises, judge, python
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

import ldm_course as ldm
from ldm_course import lab, sampling
from ldm_course.evaluate.metrics import Share
from ldm_course.lab import nb04_txt2img as nb
from ldm_course.lab.nb04_txt2img.clip import LENGTH, Pairs, SmallCLIP
from ldm_course.pipelines import SAMPLERS

NAME = "04_txt2img"

UNIT = "image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)\n    "
# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "nearest": [
        ("return (image @ text.T).argmax(dim=1)", "Long caption vectors win"),
        ("return (F.normalize(image, dim=1) @ text.T).argmax(dim=1)", "Long caption vectors win"),
        ("return torch.cdist(image, text).argmin(dim=1)", "compares end points"),
        (UNIT + "return (image @ text.T).argmax(dim=0)", "nearest image of each caption"),
        (UNIT + "return (text @ image.T).argmax(dim=1)", "nearest image of each caption"),
        (UNIT + "return (image @ text.T).argmin(dim=1)", "farthest captions"),
        (UNIT + "return (image @ text.T).max(dim=1).values", "largest cosine of each image"),
        (UNIT + "return image @ text.T", "all cosines"),
        (UNIT.replace("dim=1", "dim=0") + "return (image @ text.T).argmax(dim=1)", "along dimension 0"),
    ],
    "timesteps": [
        ("return list(range(T, 0, -(T // n)))[:n]", "starts at 1000"),
        ("return [i * (T // n) + offset for i in range(n)]", "go up"),
        ("return [i * (T // n) for i in reversed(range(n))]", "add the offset"),
        ("return list(range(T - 1, -1, -(T // n)))[:n]", "trailing"),
        ("return torch.linspace(T - 1, 0, n).round()", "linspace"),
        ("return list(range(T - T // n + offset, 0, -T // n))[: n - 1]", "shape"),
    ],
    "guided": [
        ("return (1 + guidance_scale) * eps_cond - guidance_scale * eps_uncond", "guidance_scale - 1"),
        ("w = guidance_scale - 1\n    return (1 + w) * eps_uncond - w * eps_cond", "swapped"),
        ("return eps_uncond - guidance_scale * (eps_cond - eps_uncond)", "sign"),
        ("w = guidance_scale - 1\n    return (1 + w) * eps_cond + w * eps_uncond", "add up to 1"),
        ("return eps_cond", "does not depend on guidance_scale"),
        ("eps_cond *= guidance_scale\n    return eps_cond", "in place"),
    ],
    "ddim": [
        ("return x_t - eps", "subtracts all of eps"),
        ("return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5", "x0_hat"),
        ("a = (alpha_bar_prev / alpha_bar_t) ** 0.5\n    return a * (x_t - (1 - alpha_bar_t) ** 0.5 * eps)",
         "No noise is added again"),
        ("a = (alpha_bar_prev / alpha_bar_t) ** 0.5\n    b = (1 - alpha_bar_t) ** 0.5\n"
         "    return a * x_t + (b - a * b) * eps", "noise of the old level"),
        ("a = alpha_bar_prev / alpha_bar_t\n    b = (1 - alpha_bar_prev) - a * (1 - alpha_bar_t)\n"
         "    return a * x_t + b * eps", "square roots"),
        ("x0_hat = (x_t - (1 - alpha_bar_prev) ** 0.5 * eps) / alpha_bar_prev**0.5\n"
         "    return alpha_bar_t**0.5 * x0_hat + (1 - alpha_bar_t) ** 0.5 * eps", "swapped"),
    ],
}  # fmt: skip


@each_mistake(WRONG)
def test_a_typical_mistake_gets_its_hint(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


@pytest.mark.parametrize("title", ["guided", "ddim"])
def test_the_solution_runs_in_the_real_pipeline(title, model):
    verdict = judge(*exercises(NAME)[title], model)
    assert "generated the same image" in verdict.message, verdict


# ---- what the notebook defines ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """The functions that the notebook defines, each once."""
    namespace: dict[str, Any] = {"torch": torch, "F": F, "ldm": ldm, "lab": lab, "nb": nb}
    seen: set[str] = set()
    for cell in cells(NAME, "code"):
        for statement in ast.parse(python(cell)).body:
            if isinstance(statement, ast.FunctionDef):
                assert statement.name not in seen, f"{statement.name} is defined twice"
                seen.add(statement.name)
                exec(compile(ast.Module([statement], []), NAME, "exec"), namespace)
    return namespace


def test_guide_equals_the_package(defined):
    for scale in (0.0, 1.0, 7.5):
        predictions = noise(2, 4), noise(2, 4, seed=1)
        assert_close(defined["guide"](*predictions, scale), sampling.guide(*predictions, scale))


def test_denoise_by_hand_equals_the_package(defined, model):
    context, empty = model.embed(["a dog", ""]).chunk(2)
    x_T, timesteps = noise(1, 4, 8, 8), model.schedule.timesteps(7)
    *_, last = ldm.denoise(model, x_T, context, timesteps, negative_context=empty, guidance_scale=3.0)
    mine = defined["denoise_by_hand"](model, x_T, context, empty, timesteps, 3.0)
    assert_close(mine, last.x_t, rtol=1e-4, atol=1e-4)


def test_contrastive_loss_equals_transformers(defined):
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 29},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    clip = CLIPModel(config).eval()
    tokens = torch.cat([torch.randint(1, 29, (5, 6)), torch.full((5, 1), 29)], dim=1)
    answer = clip(input_ids=tokens, pixel_values=noise(5, 3, 16, 16), return_loss=True)
    ours = defined["contrastive_loss"](answer.image_embeds, answer.text_embeds, clip.logit_scale.exp())
    assert_close(ours, answer.loss)


# ---- the small CLIP --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return nb.clip.small_pairs(ldm.load(device="cpu").tokenizer, 40, seed=3)


@pytest.fixture
def clip() -> SmallCLIP:
    torch.manual_seed(0)
    tokenizer = ldm.load().tokenizer
    return SmallCLIP(len(tokenizer), tokenizer.eos_token_id)


def test_small_pairs_have_captions_that_fit(pairs):
    assert pairs.x.shape == (40, 3, 32, 32) and pairs.tokens.shape == (40, LENGTH)
    for caption, (animal, colour, place) in zip(pairs.captions, pairs.labels):
        assert colour in caption and any(word in caption for word in ldm.scenes.captions.ANIMALS[animal])
        assert any(phrase in caption for phrase in ldm.scenes.captions.PLACES[place])
    again = nb.clip.small_pairs(ldm.load().tokenizer, 40, seed=3)
    assert again.captions == pairs.captions and torch.equal(again.tokens, pairs.tokens)


def test_no_caption_is_cut(pairs):
    end = ldm.load().tokenizer.eos_token_id
    assert (pairs.tokens[:, -1] == end).all(), "there is room left for the end token"


def test_sample_distinct_returns_each_label_once(pairs):
    different = len(set(pairs.labels))
    picks = pairs.sample_distinct(different, random.Random(0))
    assert len({pairs.labels[i] for i in picks}) == different
    with one_sentence(str(different), str(different + 1)):
        pairs.sample_distinct(different + 1, random.Random(0))


def test_small_clip_returns_unit_vectors_and_ignores_padding(pairs, clip):
    image, text = clip.encode_image(pairs.x), clip.encode_text(pairs.tokens)
    assert image.shape == text.shape == (40, 64)
    assert_close(image.norm(dim=1), torch.ones(40))
    assert_close(text.norm(dim=1), torch.ones(40))
    shorter = pairs.tokens[:, : LENGTH - 6]
    assert_close(clip.encode_text(shorter), text), "the tokens after the first end token have no influence"


def test_small_clip_learns(defined, pairs, clip):
    optimizer, rng, losses = torch.optim.Adam(clip.parameters(), lr=3e-3), random.Random(0), []
    for _ in range(80):
        picks = pairs.sample_distinct(16, rng)
        image, text = clip.encode_image(pairs.x[picks]), clip.encode_text(pairs.tokens[picks])
        loss = defined["contrastive_loss"](image, text, clip.log_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[:3]) > 2 and np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_retrieval_accuracy_counts_each_attribute():
    labels = [("dog", "white", "snow"), ("cat", "white", "snow"), ("cat", "pink", "room")]
    similarity = torch.eye(3)[[1, 0, 2]]  # the first two images are nearest to each other's captions
    expected = {"animal": 1 / 3, "colour": 1, "place": 1, "all": 1 / 3}
    assert nb.clip.retrieval_accuracy(similarity, labels) == expected


def test_similarity_table_frames_the_nearest_caption():
    images = [Image.new("RGB", (32, 32), colour) for colour in ("red", "navy")]
    drawings = [
        np.asarray(nb.figures.similarity_table(torch.tensor(values), images, ["a", "b"]))
        for values in ([[0.9, 0.1], [0.1, 0.9]], [[0.1, 0.9], [0.9, 0.1]])
    ]
    assert drawings[0].shape == drawings[1].shape and (drawings[0] != drawings[1]).any()
    orange = [(each == (213, 94, 0)).all(axis=2) for each in drawings]
    assert orange[0].any() and not (orange[0] == orange[1]).all()


def test_shipped_clip_holds_the_shipped_text_encoder():
    model, clip = ldm.load(device="cpu"), nb.clip.shipped_clip()
    tokens = ldm.text.tokenize(model.tokenizer, ["a dog with glasses", ""])
    with torch.no_grad():
        ours, whole = model.text_encoder(tokens), clip.text_model(tokens)
    assert_close(ours.last_hidden_state, whole.last_hidden_state)
    assert_close(ours.pooler_output, whole.pooler_output)


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
    (prompt, seed_row, steps, scheduler, guidance, note), image = box.children[0].children, box.children[1]
    seed, next_seed = seed_row.children
    steps.value = 4
    seen = {image.value}
    for control, value in ((prompt, "a cat"), (seed, 5), (steps, 2), (scheduler, "ddpm"), (guidance, 0.0)):
        control.value = value
        seen.add(image.value)
    next_seed.click()
    seen.add(image.value)
    assert seed.value == 6 and len(seen) == 7 and box.newest.done == 8
    assert note.value.endswith("s. "), "the time that it took, and no warning"


def test_panel_shows_warnings_about_the_prompt(model):
    sampler = nb.studio.Sampler(replace(model, known_words=frozenset({"a", "dog"})))
    box = nb.studio.panel(sampler, "a dog with glasses")
    note = box.children[0].children[-1]
    for prompt, warned in (("a dog", False), ("a dog with glasses", True)):
        box.children[0].children[0].value = prompt
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


def test_warning_is_returned_also_after_sampling():
    sampler = nb.studio.Sampler(ldm.load())
    sampler.image("a zebra", 0, 1, "ddim", 1.0)
    assert "zebra" in sampler.warning("a zebra")


def test_every_suggestion_is_in_the_model_s_words():
    sampler = nb.studio.Sampler(ldm.load())
    assert [sampler.warning(prompt) for prompt in nb.studio.SUGGESTIONS] == [""] * len(nb.studio.SUGGESTIONS)


# ---- guidance --------------------------------------------------------------------------------------------------


def test_distance_from_mean():
    x = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    assert_close(nb.figures.distance_from_mean(x), torch.tensor([0.5, 0.0, 0.5]))


def test_disagreement():
    attributes = [{"animal": "dog", "place": place} for place in ("snow", "snow", "room")]
    assert_close(nb.figures.disagreement(attributes, ["place"]), torch.tensor([0.5, 0.5, 1.0]))
    assert_close(nb.figures.disagreement(attributes, ["animal", "place"]), torch.tensor([0.25, 0.25, 0.5]))


def test_plot_guidance_tradeoff():
    shares = [Share(0, 12), Share(6, 12), Share(12, 12)]
    figure = nb.figures.plot_guidance_tradeoff([0, 1, 7.5], shares, torch.rand(3, 12))
    assert isinstance(figure, matplotlib.figure.Figure) and len(figure.axes) == 2
    assert lab.plots.png(figure)


# ---- the drawing of the three tasks ----------------------------------------------------------------------------


def test_diagrams_show_the_model_s_shapes(model):
    for task, words in {"txt2img": "the start", "img2img": "z + noise", "inpaint": "after each step"}.items():
        texts = [text.get_text() for text in lab.diagrams.flow(model, task).axes[0].texts]
        side = model.native_latent_size
        assert f"noise\n(4, {side}, {side})" in texts and any(words in text for text in texts)
    with one_sentence("task"):
        lab.diagrams.flow(model, "sketch")

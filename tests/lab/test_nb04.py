"""Notebook 04: its typical wrong answers, what it defines, its small CLIP, its measurements and its studio."""

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
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, exercises, judge, python
from torch.testing import assert_close
from transformers import CLIPConfig, CLIPModel

import ldm_course as ldm
from ldm_course import lab, sampling, schedulers
from ldm_course.lab.contrastive import LENGTH, Pairs, SmallCLIP
from ldm_course.training.score import Share

NAME = "04_txt2img"

UNIT = "image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)\n    "
# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "nearest": [
        ("return (image @ text.T).argmax(dim=1)", "The longest vectors win"),
        ("return (F.normalize(image, dim=1) @ text.T).argmax(dim=1)", "The longest vectors win"),
        ("return torch.cdist(image, text).argmin(dim=1)", "compares places"),
        (UNIT + "return (image @ text.T).argmax(dim=0)", "the other way round"),
        (UNIT + "return (text @ image.T).argmax(dim=1)", "the other way round"),
        (UNIT + "return (image @ text.T).argmin(dim=1)", "farthest"),
        (UNIT + "return (image @ text.T).max(dim=1).values", "how near it is"),
        (UNIT + "return image @ text.T", "all the cosines"),
        (UNIT.replace("dim=1", "dim=0") + "return (image @ text.T).argmax(dim=1)", "along dimension 0"),
    ],
    "timesteps": [
        ("return list(range(T, 0, -(T // n)))[:n]", "They start at 1000"),
        ("return [i * (T // n) + offset for i in range(n)]", "They rise"),
        ("return [i * (T // n) for i in reversed(range(n))]", "offset is missing"),
        ("return list(range(T - 1, -1, -(T // n)))[:n]", "trailing"),
        ("return torch.linspace(T - 1, 0, n).round()", "linspace"),
        ("return list(range(T - T // n + offset, 0, -T // n))[: n - 1]", "shape"),
    ],
    "guided": [
        ("return (1 + guidance_scale) * eps_cond - guidance_scale * eps_uncond", "guidance_scale - 1"),
        ("w = guidance_scale - 1\n    return (1 + w) * eps_uncond - w * eps_cond", "swapped"),
        ("return eps_uncond - guidance_scale * (eps_cond - eps_uncond)", "sign"),
        ("w = guidance_scale - 1\n    return (1 + w) * eps_cond + w * eps_uncond", "add up to 1"),
        ("return eps_cond", "leaves guidance_scale out"),
        ("eps_cond *= guidance_scale\n    return eps_cond", "in place"),
    ],
    "ddim": [
        ("return x_t - eps", "plain subtraction"),
        ("return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5", "x0_hat"),
        ("a = (alpha_bar_prev / alpha_bar_t) ** 0.5\n    return a * (x_t - (1 - alpha_bar_t) ** 0.5 * eps)",
         "No noise goes back"),
        ("a = (alpha_bar_prev / alpha_bar_t) ** 0.5\n    b = (1 - alpha_bar_t) ** 0.5\n"
         "    return a * x_t + (b - a * b) * eps", "As much noise"),
        ("a = alpha_bar_prev / alpha_bar_t\n    b = (1 - alpha_bar_prev) - a * (1 - alpha_bar_t)\n"
         "    return a * x_t + b * eps", "square roots"),
        ("return ldm.schedulers.ddim_step(x_t, eps, alpha_bar_prev, alpha_bar_t)", "swapped"),
    ],
}  # fmt: skip


@each_mistake(WRONG)
def test_a_typical_mistake_gets_a_hint_that_names_it(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


@pytest.mark.parametrize("title", ["guided", "ddim"])
def test_the_solution_runs_in_the_real_pipeline(title, model):
    verdict = judge(*exercises(NAME)[title], model)
    assert "painted the same picture" in verdict.message, verdict


# ---- what the notebook defines ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """The functions that the notebook defines, each once."""
    namespace: dict[str, Any] = {"torch": torch, "F": F, "ldm": ldm, "lab": lab}
    seen: set[str] = set()
    for cell in cells(NAME, "code"):
        for statement in ast.parse(python(cell)).body:
            if isinstance(statement, ast.FunctionDef):
                assert statement.name not in seen, f"{statement.name} is defined twice"
                seen.add(statement.name)
                exec(compile(ast.Module([statement], []), NAME, "exec"), namespace)
    return namespace


def test_guidance_is_the_package_s(defined):
    for scale in (0.0, 1.0, 7.5):
        predictions = noise(2, 4), noise(2, 4, seed=1)
        assert_close(defined["guided_eps"](*predictions, scale), sampling.guided_eps(*predictions, scale))


def test_the_step_is_the_package_s(defined):
    for levels in ((0.01, 0.02), (0.5, 0.9), (0.9, 1.0)):
        arguments = (noise(2, 4), noise(2, 4, seed=1), *levels)
        assert_close(defined["ddim_step"](*arguments), schedulers.ddim_step(*arguments))


def test_the_loop_by_hand_is_the_package_s(defined, model):
    context, empty = ldm.encode_prompt(model, ["a dog", ""]).chunk(2)
    x_T, timesteps = noise(1, 4, 8, 8), model.schedule.timesteps(7)
    *_, last = ldm.denoise(model, x_T, context, timesteps, negative_context=empty, guidance_scale=3.0)
    mine = defined["denoise_by_hand"](model, x_T, context, empty, timesteps, 3.0)
    assert_close(mine, last.x_t, rtol=1e-4, atol=1e-4)  # up to the first attention it takes two latents, not one


def test_the_contrastive_loss_is_transformers(defined):
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
    return lab.contrastive.small_pairs(ldm.load().tokenizer, 40, seed=3)


def test_captions_say_what_the_small_pictures_show(pairs):
    assert pairs.x.shape == (40, 3, 32, 32) and pairs.tokens.shape == (40, LENGTH)
    for text, (animal, colour, place) in zip(pairs.texts, pairs.shown):
        assert colour in text and any(word in text for word in ldm.scenes.captions.ANIMALS[animal])
        assert any(phrase in text for phrase in ldm.scenes.captions.PLACES[place])
    again = lab.contrastive.small_pairs(ldm.load().tokenizer, 40, seed=3)
    assert again.texts == pairs.texts and torch.equal(again.tokens, pairs.tokens)


def test_no_caption_is_cut(pairs):
    end = ldm.load().tokenizer.eos_token_id
    assert (pairs.tokens[:, -1] == end).all(), "there is room left for the end token"


def test_a_batch_shows_nothing_twice(pairs):
    different = len(set(pairs.shown))
    picks = pairs.distinct(different, random.Random(0))
    assert len({pairs.shown[i] for i in picks}) == different
    with one_sentence(str(different), str(different + 1)):
        pairs.distinct(different + 1, random.Random(0))


def test_both_encoders_give_directions_and_padding_changes_nothing(pairs):
    torch.manual_seed(0)
    tokenizer = ldm.load().tokenizer
    clip = SmallCLIP(len(tokenizer), tokenizer.eos_token_id)
    image, text = clip.image(pairs.x), clip.text(pairs.tokens)
    assert image.shape == text.shape == (40, 64)
    assert_close(image.norm(dim=1), torch.ones(40))
    assert_close(text.norm(dim=1), torch.ones(40))
    shorter = pairs.tokens[:, : LENGTH - 6]
    assert_close(clip.text(shorter), text), "what follows the first end token is not seen"


def test_a_few_steps_bring_pictures_and_captions_together(defined, pairs):
    torch.manual_seed(0)
    tokenizer = ldm.load().tokenizer
    clip = SmallCLIP(len(tokenizer), tokenizer.eos_token_id)
    optimizer, rng, losses = torch.optim.Adam(clip.parameters(), lr=3e-3), random.Random(0), []
    for _ in range(80):
        picks = pairs.distinct(16, rng)
        loss = defined["contrastive_loss"](
            clip.image(pairs.x[picks]), clip.text(pairs.tokens[picks]), clip.log_scale.exp()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[:3]) > 2 and np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_the_exam_counts_each_attribute():
    shown = [("dog", "white", "snow"), ("cat", "white", "snow"), ("cat", "pink", "room")]
    similarity = torch.eye(3)[[1, 0, 2]]  # the first two pictures pick each other's caption
    assert lab.contrastive.shares_right(similarity, shown) == {"animal": 1 / 3, "colour": 1, "place": 1, "all": 1 / 3}


def test_the_table_frames_the_nearest_caption():
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "navy")]
    drawings = [
        np.asarray(lab.contrastive.table(torch.tensor(values), pictures, ["a", "b"]))
        for values in ([[0.9, 0.1], [0.1, 0.9]], [[0.1, 0.9], [0.9, 0.1]])
    ]
    assert drawings[0].shape == drawings[1].shape and (drawings[0] != drawings[1]).any()
    orange = [(each == (213, 94, 0)).all(axis=2) for each in drawings]
    assert orange[0].any() and not (orange[0] == orange[1]).all()


def test_the_shipped_clip_holds_the_shipped_text_encoder():
    model, clip = ldm.load(), lab.contrastive.shipped_clip()
    tokens = model.tokenizer(["a dog with glasses", ""], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        ours, whole = model.text_encoder(tokens), clip.text_model(tokens)
    assert_close(ours.last_hidden_state, whole.last_hidden_state)
    assert_close(ours.pooler_output, whole.pooler_output)


# ---- the studio ------------------------------------------------------------------------------------------------

SETTINGS = {"seed": 3, "steps": 4, "scheduler": "dpm++", "guidance": 3.0}


@pytest.mark.parametrize("scheduler", sorted(schedulers.SCHEDULERS))
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_the_painter_paints_what_the_pipeline_paints(model, scheduler, guidance):
    painted = lab.studio.Painter(model).picture("a dog", **{**SETTINGS, "scheduler": scheduler, "guidance": guidance})
    other = ldm.txt2img(
        model, "a dog", seed=3, num_inference_steps=4, scheduler=scheduler, guidance_scale=guidance
    )  # fmt: skip
    assert pixel_difference(painted, other) <= 1


def test_the_painter_shows_its_guess_on_the_way(model):
    yielded = list(lab.studio.Painter(model)("a dog", **{**SETTINGS, "steps": 7}))
    assert [picture is not None for picture in yielded] == [False, False, True, False, False, True, False, True]


def test_the_studio_follows_every_control(model):
    box = lab.studio.studio(lab.studio.Painter(model), "a dog")
    (prompt, seed_row, steps, scheduler, guidance, note), image = box.children[0].children, box.children[1]
    seed, another = seed_row.children
    steps.value = 4
    seen = {image.value}
    for control, value in ((prompt, "a cat"), (seed, 5), (steps, 2), (scheduler, "ddpm"), (guidance, 0.0)):
        control.value = value
        seen.add(image.value)
    another.click()
    seen.add(image.value)
    assert seed.value == 6 and len(seen) == 7 and box.newest.done == 8
    assert note.value.endswith("s. "), "how long it took, and no remark"


def test_the_studio_says_which_words_are_new(model):
    painter = lab.studio.Painter(replace(model, known_words=frozenset({"a", "dog"})))
    box = lab.studio.studio(painter, "a dog with glasses")
    note = box.children[0].children[-1]
    for prompt, said in (("a dog", False), ("a dog with glasses", True)):
        box.children[0].children[0].value = prompt
        assert ("'glasses'" in note.value) == said, "also when the prompt was read before"


def test_newer_settings_give_up_the_older_picture(model):
    async def hurry():
        box = lab.studio.studio(lab.studio.Painter(model), "a dog")
        await asyncio.sleep(0.01)
        steps = box.children[0].children[2]
        for value in (40, 41, 3):
            steps.value = value
            await asyncio.sleep(0.01)
        while not box.newest.done:
            await asyncio.sleep(0.01)
        return box.newest

    newest = asyncio.run(hurry())
    assert newest.done == 1 and newest.cancelled >= 1


def test_what_is_to_be_said_of_a_prompt_is_said_also_after_its_picture():
    painter = lab.studio.Painter(ldm.load())
    painter.picture("a zebra", 0, 1, "ddim", 1.0)
    assert "zebra" in painter.remark("a zebra")


def test_every_suggestion_is_in_the_model_s_words():
    painter = lab.studio.Painter(ldm.load())
    assert [painter.remark(prompt) for prompt in lab.studio.SUGGESTIONS] == [""] * len(lab.studio.SUGGESTIONS)


# ---- guidance --------------------------------------------------------------------------------------------------


def test_the_spread_is_measured_from_the_mean():
    x = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    assert_close(lab.studio.spread(x), torch.tensor([0.5, 0.0, 0.5]))


def test_pictures_that_differ_are_counted():
    seen = [{"animal": "dog", "place": place} for place in ("snow", "snow", "room")]
    assert_close(lab.studio.differing(seen, ["place"]), torch.tensor([0.5, 0.5, 1.0]))
    assert_close(lab.studio.differing(seen, ["animal", "place"]), torch.tensor([0.25, 0.25, 0.5]))


def test_what_guidance_bought_is_drawn():
    figure = lab.studio.bought([0, 1, 7.5], [Share(0, 12), Share(6, 12), Share(12, 12)], torch.rand(3, 12))
    assert isinstance(figure, matplotlib.figure.Figure) and len(figure.axes) == 2
    assert lab.plots.png(figure)


# ---- the drawing of the three tasks --------------------------------------------------------------------------------


def test_each_task_is_drawn_with_the_model_s_shapes(model):
    for task, words in {"txt2img": "the start", "img2img": "z + noise", "inpaint": "after each step"}.items():
        texts = [text.get_text() for text in lab.diagrams.flow(model, task).axes[0].texts]
        side = model.unet.config.sample_size
        assert f"noise\n(4, {side}, {side})" in texts and any(words in text for text in texts)
    with one_sentence("task"):
        lab.diagrams.flow(model, "sketch")

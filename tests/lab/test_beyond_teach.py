"""Notebook beyond/teach_it: its drawings and prompts, its figures, its definitions, and a short lesson."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import one_sentence, relative_error
from lab_helpers import definitions, solution
from PIL import Image

import ldm_course as ldm
from ldm_course.evaluate.metrics import Share
from ldm_course.lab.beyond_teach import ask, figures, world
from ldm_course.lora import LoRALinear, add_lora, lora_layers, lora_parameters
from ldm_course.model import LatentDiffusion
from ldm_course.scenes import is_held_out
from ldm_course.scenes.held_out import HELD_OUT
from ldm_course.train import teach

INPUTS = torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), torch.randn(2, 77, 24)


# ---- drawings and prompts --------------------------------------------------------------------------------------


def test_the_drawings_are_eight_different_sleeping_elephants():
    scenes = world.drawings()
    assert scenes == world.drawings() and len(set(scenes)) == 8
    assert all(world.ELEPHANT.items() <= scene.attributes().items() for scene in scenes)
    others = [pair for pair in HELD_OUT if pair != world.ELEPHANT]
    assert not [pair for pair in others for scene in scenes if pair.items() <= scene.attributes().items()]
    assert {scene.place for scene in scenes} == set(ldm.scenes.ATTRIBUTES["place"])
    assert {scene.colour for scene in scenes} == set(ldm.scenes.ATTRIBUTES["colour"])


def test_every_wording_names_the_elephant_and_its_sleep():
    for scene in world.drawings():
        texts = world.wordings(scene, 8)
        assert texts == world.wordings(scene, 8) and len(texts) == 8
        assert all("elephant" in text and any(word in text for word in ("sle", "nap")) for text in texts)
    assert world.wordings(world.drawings()[0], 0) == []


def test_test_scenes_are_not_held_out_but_for_what_is_fixed():
    assert not any(map(is_held_out, world.test_scenes(50)))
    asleep = world.test_scenes(50, **world.ELEPHANT)
    assert all(world.ELEPHANT.items() <= scene.attributes().items() for scene in asleep)
    assert len(set(asleep)) == 50 and not set(asleep) & set(world.drawings())
    captions = world.full_captions(asleep)
    assert len(set(captions)) > 45 and all(scene.colour in text for scene, text in zip(asleep, captions))


def test_the_judge_sees_what_is_drawn():
    scenes = [*world.drawings(), *world.test_scenes(8)]
    drawn = [scene.render() for scene in scenes]
    assert world.Judge().right(drawn, scenes) == Share(16, 16)
    assert world.Judge().right(drawn, scenes[::-1]).right < 4


def test_the_winter_drawings_wear_two_things_and_their_captions_say_one_phrase():
    images, texts = world.winter()
    again, _ = world.winter()
    assert [image.tobytes() for image in images] == [image.tobytes() for image in again]
    assert world.Judge().wears(images, *world.WINTER) == [True] * 8
    assert [len(each) for each in texts] == [8] * 8
    assert all(text.endswith(" dressed for winter") for each in texts for text in each)
    assert not {"hat", "scarf", "plain", "nothing"} & {
        word for each in texts for text in each for word in text.split()
    }


def test_the_judge_tells_two_accessories_from_one():
    scenes = [replace(scene, accessory=name) for scene in world.test_scenes(40) for name in world.WINTER]
    judge = world.Judge()
    assert not any(judge.wears([scene.render() for scene in scenes], *world.WINTER))
    assert sum(judge.wears([world.wearing(scene, *world.WINTER) for scene in scenes], *world.WINTER)) >= 76


def test_plain_captions_name_what_they_are_told_to():
    scenes = [ldm.scenes.Scene(animal="pig", action="running", place="snow", colour="pink", accessory="hat")]
    assert world.captions(scenes, "animal", "place") == ["a pig in the snow"]


# ---- figures ---------------------------------------------------------------------------------------------------


def test_an_image_of_full_rank_is_the_image_in_grey():
    image = world.drawings()[0].render()
    grey = np.asarray(image.convert("L"), dtype=int)
    errors = [np.abs(np.asarray(figures.of_rank(image, r), dtype=int)[..., 0] - grey).mean() for r in (1, 8, 64, 128)]
    assert errors == sorted(errors, reverse=True) and errors[-1] == 0 < errors[0]
    assert len(figures.rank_pages(image)) == len(figures.RANKS)


def test_figures_say_what_they_are_given():
    two_ways = figures.two_ways(128, 64, 8).axes[0]
    assert {"W\n128 x 64\nstays as it is", "A   8 x 64", "B   128 x 8"} <= {
        text.get_text() for text in two_ways.texts
    }
    shares = figures.shares({"elephants": {"before": Share(1, 20), "after": Share(15, 20)}}).axes[0]
    assert [text.get_text() for text in shares.texts] == ["1 of 20", "15 of 20"]


def test_a_page_s_bar_grows_with_the_lesson():
    image = Image.new("RGB", (8, 8), "white")
    bars = [np.asarray(figures.page([image] * 4, step, 200))[-50] for step in (0, 100, 200)]
    coloured = [(bar == (213, 94, 0)).all(axis=1).mean() for bar in bars]  # ORANGE
    assert coloured[0] < 0.01 and abs(coloured[1] - 0.5) < 0.01 and coloured[2] == 1


def test_labelled_images_stand_in_rows_of_four():
    image = Image.new("RGB", (8, 8), "black")
    one, two = (figures.labelled([image] * n, ["sitting"] * n) for n in (3, 7))
    assert two.height == 2 * one.height and two.width > one.width
    assert not np.asarray(two)[one.height + 60 : one.height + 300, :250].any(), "the second row is there"


# ---- the live box ----------------------------------------------------------------------------------------------


def test_the_box_asks_both_models_anew_after_each_control(model):
    asked = []

    def at(*strengths: float) -> LatentDiffusion:
        asked.append(strengths)
        return replace(model, unet=ldm.lora.scale_lora(there.unet, sum(strengths)))

    there = taught(model)
    before = replace(model, known_words=frozenset({"a", "dog", "cat", "in", "the", "snow"}))
    words, seed, one, other, note, image = ask(before, at, "a dog", knobs=("s", "t")).children
    drawings = [image.value]
    for control, value in ((words, "a cat in the snow"), (seed, 3), (one, 0.5), (other, 0.2)):
        control.value = value
        drawings.append(image.value)
    assert len(set(drawings)) == 5 and asked == [(1, 1)] * 3 + [(0.5, 1), (0.5, 0.2)]
    assert note.value.startswith("The classifier now sees: a")
    words.value = "a zebra"
    assert "zebra" in note.value, "a word that the model does not know"


@torch.no_grad()
def test_the_box_shows_the_image_of_txt2img(model):
    quick = {"scheduler": "dpm++", "num_inference_steps": 10, "guidance_scale": 4.0}
    *_, image = ask(model, lambda _: model, "a dog", seed=7).children
    shown = np.asarray(Image.open(io.BytesIO(image.value)), dtype=float)[-512:]
    made = ldm.txt2img(model, "a dog", seed=7, **quick).resize((512, 512), Image.Resampling.LANCZOS)
    for half in (shown[:, :512], shown[:, -512:]):
        assert np.abs(half - np.asarray(made, dtype=float)).mean() < 6, "but for JPEG"


# ---- what the notebook defines ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions("teach_it", LoRALinear=LoRALinear)


def taught(model: LatentDiffusion, rank: int = 2) -> LatentDiffusion:
    unet = add_lora(model.unet, rank, target_modules=teach.TARGETS)
    for weight in lora_parameters(unet):
        torch.nn.init.normal_(weight, std=0.1)
    return replace(model, unet=unet)


def test_lora_weights_are_those_of_lora(model, defined):
    there = taught(model)
    assert {id(w) for w in defined["lora_weights"](there.unet)} == {id(w) for w in lora_parameters(there.unet)}


@torch.no_grad()
def test_with_strength_scales_a_copy(model, defined):
    there = taught(model)
    full = there.unet(*INPUTS)
    assert torch.equal(defined["with_strength"](there, 0).unet(*INPUTS), model.unet(*INPUTS))
    assert torch.equal(defined["with_strength"](there, 1).unet(*INPUTS), full)
    twice = defined["with_strength"](there, 2).unet(*INPUTS)
    assert relative_error(twice, ldm.lora.scale_lora(there.unet, 2)(*INPUTS)) <= 1e-5
    assert torch.equal(there.unet(*INPUTS), full)


@torch.no_grad()
def test_two_lessons_as_one_are_two_lessons_added(model, defined):
    one, other = taught(model, 2), taught(model, 3)
    defined |= {"small": model, "free": model, "stack": solution("teach_it", "stack")}
    added = defined["added"](one, other, 0.5, 2.0).unet
    around = {}
    for name, layer in lora_layers(ldm.lora.scale_lora(other.unet, 2.0)).items():
        inner = lora_layers(ldm.lora.scale_lora(one.unet, 0.5))[name]
        around[name] = LoRALinear(inner, 3, 6.0)
        around[name].lora_A, around[name].lora_B = layer.lora_A, layer.lora_B
    assert relative_error(added(*INPUTS), ldm.lora.with_layers(model.unet, around)(*INPUTS)) <= 1e-5


def test_the_open_build_names_what_is_missing(model):
    from ldm_course.lab.beyond_teach.checks import own_drawings

    images = [Image.new("RGB", (64, 64), (20 * i, 0, 0)) for i in range(4)]
    assert own_drawings(lambda: (images, ["red"] * 4), model).status == "right"
    assert "4 to 20" in own_drawings(lambda: (images * 6, ["red"] * 24), model).message
    assert own_drawings(lambda: (images, ...), model).status == "not tried"
    with one_sentence("captions for 3"):
        teach.encode_examples(model, images, [["red"]] * 3)


# ---- the lesson ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_short_lesson_teaches_the_shipped_model_sleeping_elephants():
    small, judge = ldm.load(device="cpu"), world.Judge()
    scenes = world.drawings()
    new = teach.encode_examples(small, [s.render() for s in scenes], [world.wordings(s, 8) for s in scenes])
    old = teach.joined(list(teach.generate_examples(small, teach.small_world_prompts(16))))
    *_, last = teach.teach(small, new, old, steps=60)
    quick = {"scheduler": "dpm++", "num_inference_steps": 10, "guidance_scale": 4.0, "seed": 500}
    asked = world.test_scenes(12, **world.ELEPHANT)
    before, after = (
        judge.right(ldm.txt2img(one, world.full_captions(asked), **quick), asked).right for one in (small, last.model)
    )
    assert before == 0 and after >= 2, "5 with these weights; a whole lesson has five times the steps"


def test_diffusers_unet_has_the_lora(tmp_path, capfd):
    small, file = ldm.load(device="cpu"), tmp_path / "lora.safetensors"
    there = taught(small)
    ldm.save_lora(there, file)
    inputs = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 77, 128)
    with torch.no_grad():
        theirs = world.diffusers_unet(file)(*inputs).sample
        assert relative_error(small.unet(*inputs), theirs) > 0.01
        assert relative_error(there.unet(*inputs), theirs) <= 1e-5
    assert capfd.readouterr().err == "", "a notebook shows it"

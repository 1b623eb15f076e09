"""The small world: determinism, renders, masks, held-out combinations, captions."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from ldm_course.scenes import (
    ATTRIBUTES,
    HELD_OUT,
    PARTS,
    Scene,
    contact_sheet,
    is_held_out,
    random_caption,
    random_mention,
    random_scene,
    training_scene,
)

WORDS = {  # every word that gives an attribute's value away, apart from "none"
    "animal": {
        "dog": "dog puppy", "cat": "cat kitten", "rabbit": "rabbit bunny", "bear": "bear",
        "pig": "pig piglet", "elephant": "elephant",
    },
    "colour": {name: name for name in ATTRIBUTES["colour"]},
    "accessory": {name: name for name in ATTRIBUTES["accessory"][1:]} | {"none": "plain nothing"},
    "action": {
        "sitting": "sitting sits sat", "running": "running runs ran run",
        "sleeping": "sleeping sleeps naps asleep",
    },
    "place": {
        "beach": "beach sea", "forest": "forest woods trees", "city": "city town", "snow": "snow",
        "room": "room indoors",
    },
}  # fmt: skip


def array(image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)


def said(caption: str) -> dict[str, str]:
    """What a caption says, by the words in it."""
    words = set(re.findall("[a-z]+", caption))
    found = {}
    for name, values in WORDS.items():
        hits = [value for value, synonyms in values.items() if words & set(synonyms.split())]
        assert len(hits) <= 1, caption
        if hits:
            found[name] = hits[0]
    return found


def test_a_training_scene_depends_on_seed_and_index_alone():
    forwards = [training_scene(7, i) for i in range(20)]
    assert [training_scene(7, i) for i in reversed(range(20))] == forwards[::-1]
    assert len(set(forwards)) == 20 and training_scene(8, 0) != forwards[0]
    a, b = random_scene(random.Random(3)), random_scene(random.Random(3))
    assert a == b != random_scene(random.Random(4))


def test_renders_are_the_same_in_another_process():
    code = (
        "import hashlib; from ldm_course.scenes import training_scene as t;"
        "print(hashlib.sha256(b''.join(t(0, i).render().tobytes() for i in range(5))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = hashlib.sha256(b"".join(training_scene(0, i).render().tobytes() for i in range(5))).hexdigest()
    assert there == here


def test_no_accessory_has_two_spellings():
    assert Scene(accessory="none") == Scene(accessory=None) and Scene(accessory="none").accessory is None
    assert Scene().attributes()["accessory"] == "none"
    assert Scene(**Scene(accessory="hat").attributes()) == Scene(accessory="hat")


def test_sizes():
    assert Scene().render().size == Scene().mask("face").size == (128, 128) and Scene().render().mode == "RGB"
    assert Scene().render(50).size == Scene().mask("face", 50).size == (50, 50)
    assert contact_sheet([Scene().render(16)] * 5, columns=3).size == (3 * 20 + 4, 2 * 20 + 4)


def test_every_value_looks_different():
    for base in (Scene(), Scene(animal="bear", colour="white", place="snow", action="running")):
        for name, values in ATTRIBUTES.items():
            images = [array(replace(base, **{name: value}).render()) for value in values]
            for (i, a), (j, b) in combinations(enumerate(images), 2):
                assert np.abs(a - b).mean() > 2.5, (name, values[i], values[j])


@pytest.mark.parametrize("part", PARTS)
def test_every_animal_in_every_action_has_every_part(part):
    for animal, action in product(ATTRIBUTES["animal"], ATTRIBUTES["action"]):
        mask = Scene(animal=animal, accessory="glasses", action=action).mask(part)
        assert mask.mode == "L" and 0.002 < (array(mask) > 127).mean() < 0.9, (animal, action)


def test_masks_lie_where_the_parts_are():
    scene = Scene(accessory="glasses")
    face, background = array(scene.mask("face")), array(scene.mask("background"))
    assert face[75 - 10, 64] == 255 and face[110, 64] == 0 and face[5, 5] == 0
    assert background[5, 5] == 255 and background[90, 64] == 0
    assert array(scene.mask("body"))[90, 64] == 255
    assert np.abs(array(scene.mask("animal")) + background - 255).max() <= 2
    parts = sum(array(scene.mask(p)) for p in ("face", "body", "legs", "tail", "accessory", "background"))
    assert np.abs(parts - 255).mean() < 1


@pytest.mark.parametrize("accessory", ATTRIBUTES["accessory"][1:])
@pytest.mark.parametrize("animal", ATTRIBUTES["animal"])
def test_the_accessory_mask_is_where_the_accessory_changes_the_image(accessory, animal):
    without = Scene(animal=animal, colour="orange", tilt=4.0)
    scene = replace(without, accessory=accessory)
    changed = np.abs(array(scene.render()) - array(without.render())).max(axis=2)
    mask = array(scene.mask("accessory"))
    assert changed[mask == 0].max() <= 2, "nothing else changes"
    assert (changed[mask == 255] > 8).mean() > 0.9


def test_sitting_and_running_differ_in_the_lower_half():
    for animal in ATTRIBUTES["animal"]:
        sitting, running = (array(Scene(animal=animal, action=a).render()) for a in ("sitting", "running"))
        difference = np.abs(sitting - running).mean(axis=(1, 2))
        assert difference[64:].mean() > 4 * difference[:64].mean()


def test_held_out_never_leaks_and_all_else_occurs():
    scenes = [training_scene(0, i) for i in range(20_000)]
    assert not any(map(is_held_out, scenes))
    pairs = Counter(pair for scene in scenes for pair in combinations(scene.attributes().items(), 2))
    for (a, values_a), (b, values_b) in combinations(ATTRIBUTES.items(), 2):
        for va, vb in product(values_a, values_b):
            assert (pairs[(a, va), (b, vb)] == 0) == ({a: va, b: vb} in HELD_OUT), (va, vb)


def test_held_out_scenes_on_request():
    assert {"animal": "dog", "accessory": "glasses"} in HELD_OUT
    rng = random.Random(0)
    scenes = [random_scene(rng, held_out=True) for _ in range(500)]
    assert all(is_held_out(scene) for scene in scenes)
    for pair in HELD_OUT:
        assert any(pair.items() <= scene.attributes().items() for scene in scenes)
    assert len({is_held_out(random_scene(rng, held_out=None)) for _ in range(100)}) == 2
    assert is_held_out(Scene(accessory="glasses")) and is_held_out({"animal": "dog", "accessory": "glasses"})
    assert not is_held_out(Scene()) and not is_held_out({"animal": "dog"})


@pytest.mark.parametrize(
    "scene, attributes, caption",
    [
        ({"accessory": "glasses"}, None, "a brown dog with glasses sitting on the beach"),
        ({"accessory": "glasses"}, ("animal", "accessory"), "a dog with glasses"),
        ({}, ["action"], "a dog sitting"),
        ({}, (), "a dog"),
        ({"colour": "orange"}, None, "a plain orange dog sitting on the beach"),
        ({"colour": "orange"}, ("colour",), "an orange dog"),
    ],
)
def test_canonical_captions(scene, attributes, caption):
    assert Scene(**scene).caption(attributes=attributes) == caption


def test_captions_say_what_they_should_and_nothing_else():
    rng = random.Random(0)
    for i in range(5_000):
        scene, mention = training_scene(1, i), random_mention(rng)
        caption = scene.caption(rng, attributes=mention)
        assert caption == caption.lower() and "  " not in caption and caption == caption.strip()
        assert said(caption) == {name: scene.attributes()[name] for name in mention}, caption
        assert said(scene.caption()) == scene.attributes()


def test_captions_vary_and_short_ones_are_common():
    rng = random.Random(0)
    scene = Scene(accessory="glasses", action="running")
    captions = Counter(random_caption(scene, rng) for _ in range(4_000))
    assert len(captions) > 500
    assert captions["a dog with glasses"] > 40 and captions["a dog running"] > 40
    full = sum(len(random_mention(rng)) == 5 for _ in range(4_000))
    assert 1_800 < full < 2_600
    assert random_caption(scene, random.Random(5)) == random_caption(scene, random.Random(5))

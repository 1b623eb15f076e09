"""The small world: determinism, renders, masks, held-out combinations, captions."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations

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


def test_attributes_are_the_fixed_vocabulary():
    assert list(ATTRIBUTES) == ["animal", "colour", "accessory", "action", "place"]
    assert [len(values) for values in ATTRIBUTES.values()] == [6, 6, 6, 3, 5]


def test_same_seed_same_scene_and_same_image():
    a, b = random_scene(random.Random(3)), random_scene(random.Random(3))
    assert a == b and hash(a) == hash(b)
    assert a.render().tobytes() == b.render().tobytes()
    assert random_scene(random.Random(4)) != a


def test_a_training_scene_does_not_depend_on_the_order():
    forwards = [training_scene(7, i) for i in range(20)]
    assert [training_scene(7, i) for i in reversed(range(20))] == forwards[::-1]
    assert len(set(forwards)) == 20
    assert training_scene(8, 0) != forwards[0]


def test_stable_across_processes():
    code = (
        "import hashlib; from ldm_course.scenes import training_scene as t;"
        "print(hashlib.sha256(b''.join(t(0, i).render().tobytes() for i in range(5))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = hashlib.sha256(b"".join(training_scene(0, i).render().tobytes() for i in range(5))).hexdigest()
    assert there == here


def test_no_accessory_has_two_spellings():
    assert Scene(accessory="none") == Scene(accessory=None)
    assert Scene(accessory="none").accessory is None
    assert Scene().attributes()["accessory"] == "none"
    assert Scene(**Scene(accessory="hat").attributes()) == Scene(accessory="hat")


def test_render_sizes():
    assert Scene().render().size == (128, 128) and Scene().render().mode == "RGB"
    assert Scene().render(50).size == (50, 50)


def test_every_value_looks_different():
    for base in (Scene(), Scene(animal="bear", colour="white", place="snow", action="running")):
        for name, values in ATTRIBUTES.items():
            images = [array(replace(base, **{name: value}).render()) for value in values]
            for (i, a), (j, b) in combinations(enumerate(images), 2):
                assert np.abs(a - b).mean() > 2.5, (name, values[i], values[j])


@pytest.mark.parametrize("part", PARTS)
def test_mask_of_a_part(part):
    for animal in ATTRIBUTES["animal"]:
        for action in ATTRIBUTES["action"]:
            mask = Scene(animal=animal, accessory="glasses", action=action).mask(part)
            assert mask.size == (128, 128) and mask.mode == "L"
            inside = (array(mask) > 127).mean()
            assert 0.002 < inside < 0.9, (animal, action, inside)


def test_masks_lie_where_the_parts_are():
    scene = Scene(accessory="glasses")
    face, background = array(scene.mask("face")), array(scene.mask("background"))
    assert face[75 - 10, 64] == 255 and face[110, 64] == 0 and face[5, 5] == 0
    assert background[5, 5] == 255 and background[90, 64] == 0
    assert array(scene.mask("body"))[90, 64] == 255
    assert np.abs(array(scene.mask("animal")) + background - 255).max() <= 2
    parts = sum(array(scene.mask(p)) for p in ("face", "body", "legs", "tail", "accessory", "background"))
    assert np.abs(parts - 255).mean() < 1
    assert scene.mask("face", 64).size == (64, 64)


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
    pairs = Counter()
    for scene in scenes:
        values = scene.attributes()
        assert not is_held_out(scene) and not is_held_out(values)
        pairs.update(combinations(values.items(), 2))
    for (a, values_a), (b, values_b) in combinations(ATTRIBUTES.items(), 2):
        for va in values_a:
            for vb in values_b:
                assert (pairs[(a, va), (b, vb)] == 0) == ({a: va, b: vb} in HELD_OUT), (va, vb)


def test_held_out_scenes_on_request():
    assert {"animal": "dog", "accessory": "glasses"} in HELD_OUT
    rng = random.Random(0)
    scenes = [random_scene(rng, held_out=True) for _ in range(500)]
    assert all(is_held_out(scene) for scene in scenes)
    for pair in HELD_OUT:
        assert any(pair.items() <= scene.attributes().items() for scene in scenes)
    assert len({is_held_out(random_scene(rng, held_out=None)) for _ in range(100)}) == 2
    assert is_held_out(Scene(accessory="glasses")) and not is_held_out(Scene())
    assert not is_held_out({"animal": "dog"})


def test_canonical_captions():
    dog = Scene(accessory="glasses")
    assert dog.caption() == "a brown dog with glasses sitting on the beach"
    assert dog.caption(attributes=("animal", "accessory")) == "a dog with glasses"
    assert dog.caption(attributes=["action"]) == "a dog sitting"
    assert dog.caption(attributes=()) == "a dog"
    assert Scene(colour="orange").caption() == "a plain orange dog sitting on the beach"
    assert Scene(colour="orange").caption(attributes=("colour",)) == "an orange dog"


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


def test_contact_sheet():
    sheet = contact_sheet([Scene().render(16)] * 5, columns=3)
    assert sheet.size == (3 * 20 + 4, 2 * 20 + 4)

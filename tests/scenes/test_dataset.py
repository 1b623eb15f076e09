"""Rendered training sets: cached, and keyed by the source that draws them."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ldm_course import scenes
from ldm_course.scenes import Scene, dataset, is_held_out, training_scene
from ldm_course.scenes.chimera import SHARES, Chimera, mixed_scene, random_chimera


def test_images_are_rendered_once_and_equal_the_scenes(tmp_path):
    first = dataset.render_scenes(tmp_path, "train", 0, 3, 32)
    assert np.array_equal(first[2], np.asarray(training_scene(0, 2).render(32)))
    (only,) = tmp_path.iterdir()
    stamp = only.stat().st_mtime_ns
    dataset.render_scenes(tmp_path, "train", 0, 3, 32)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [stamp]


def test_images_of_other_source_are_not_reused(tmp_path, monkeypatch):
    """Of other drawings, captions or a held-out list: the digest in the file's name is another."""
    copy = shutil.copytree(Path(scenes.__file__).parent, tmp_path / "scenes")
    digests = {dataset.source_digest()}
    assert dataset.source_digest(copy) in digests
    for file in ("places.py", "captions.py", "held_out.py"):
        (copy / file).write_text((copy / file).read_text() + "\n# changed\n")
        digests.add(dataset.source_digest(copy))
    assert len(digests) == 4
    for digest in sorted(digests)[:2]:
        monkeypatch.setattr(dataset, "source_digest", lambda digest=digest: digest)
        dataset.render_scenes(tmp_path / "cache", "train", 0, 1, 32)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_rendering_broken_off_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "tqdm", stop)
    with pytest.raises(KeyboardInterrupt):
        dataset.render_scenes(tmp_path, "train", 0, 3, 32)
    assert not list(tmp_path.iterdir())


def test_no_room_for_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"need 0.0 GB .* 0.0 GB are free"):
        dataset.render_scenes(tmp_path, "train", 0, 10, 32)
    assert not list(tmp_path.iterdir())


def test_a_chimera_never_has_head_and_face_of_an_animal_that_is_held_out():
    parts = set()
    for one in (random_chimera(random.Random(i)) for i in range(3000)):
        assert 0 < one.share < 1 and set(one.animals.values()) == {one.scene.animal, one.other}
        for animal in (one.scene.animal, one.other):
            if is_held_out(replace(one.scene, animal=animal)):
                parts.add(tuple(part for part in SHARES if one.animals[part] == animal))
            assert (animal, one.scene.action) != ("elephant", "sleeping")
    assert parts == {("head",), ("face",), ("body",), ("head", "body"), ("face", "body")}


def test_a_chimera_is_drawn_from_both_animals():
    made = Chimera(Scene(animal="dog", accessory="glasses"), "cat", {"head": "dog", "face": "cat", "body": "cat"})
    assert made.share == 0.45
    dog, cat, mixed = (
        np.asarray(one.render(64), float) for one in (made.scene, replace(made.scene, animal="cat"), made)
    )
    assert np.abs(mixed - dog).mean() > 1 and np.abs(mixed - cat).mean() > 1
    whole = Chimera(made.scene, "cat", dict.fromkeys(made.animals, "dog"))
    assert np.array_equal(np.asarray(whole.render(64), float), dog)


def test_two_of_five_images_of_the_unet_are_chimeras(tmp_path):
    kinds = [isinstance(mixed_scene(0, i), Chimera) for i in range(10)]
    assert sum(kinds) == 4 and mixed_scene(0, 2) == training_scene(0, 2)
    images = dataset.render_scenes(tmp_path, "mixed", 0, 3, 32)
    assert np.array_equal(images[0], np.asarray(mixed_scene(0, 0).render(32)))


def test_only_the_classifier_sees_held_out_scenes():
    assert not any(is_held_out(training_scene(0, i)) for i in range(2000))
    assert any(is_held_out(dataset.classifier_scene(0, i)) for i in range(100))

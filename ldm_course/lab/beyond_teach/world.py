"""The lesson's drawings and tests: sleeping elephants, what else the model knew, and a classifier that decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import nn

from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.evaluate.metrics import Share
from ldm_course.evaluate.reference import diffusers_pipeline
from ldm_course.images import to_tensor
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.scenes import ATTRIBUTES, Scene, random_mention, random_scene

ELEPHANT = {"animal": "elephant", "action": "sleeping"}
COLOURS = ("white", "black", "brown", "orange", "pink", "blue", "brown", "white")
WORN = (None, "glasses", None, "hat", "scarf", None, "headphones", None)
PLACES = ("beach", "forest", "city", "snow", "room", "beach", "forest", "room")


def drawings() -> list[Scene]:
    """Eight sleeping elephants, which differ in all else."""
    rng = random.Random("eight")
    drawn = [random_scene(rng, held_out=None) for _ in range(8)]
    looks = zip(COLOURS, WORN, PLACES)
    return [
        replace(scene, **ELEPHANT, colour=colour, accessory=worn, place=place)  # type: ignore[arg-type]
        for scene, (colour, worn, place) in zip(drawn, looks)
    ]


def wordings(scene: Scene, count: int, seed: int = 0) -> list[str]:
    """Captions of a scene that all name the animal and what it does."""
    rng = random.Random(f"wordings-{seed}-{scene}")
    named = [tuple(dict.fromkeys((*ELEPHANT, *random_mention(rng)))) for _ in range(count)]
    return [scene.caption(rng, names) for names in named]


def test_scenes(count: int, seed: int = 0, **fixed: str) -> list[Scene]:
    """Scenes at random, none held out but for what is fixed, such as action="sleeping"."""
    rng = random.Random(f"test-{seed}-{fixed}")
    return [replace(random_scene(rng), **fixed) for _ in range(count)]  # type: ignore[arg-type]


def full_captions(scenes: Sequence[Scene], seed: int = 0) -> list[str]:
    """A random wording of all five attributes of each scene."""
    return [scene.caption(random.Random(f"full-{seed}-{i}"), tuple(ATTRIBUTES)) for i, scene in enumerate(scenes)]


class Judge:
    """The classifier that comes with the model, trained apart from it, on all combinations."""

    def __init__(self) -> None:
        self.classifier = load_classifier(bundled_path())

    def look(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        """The five attributes that each image shows."""
        return classify(self.classifier, to_tensor(images))

    def right(self, images: Sequence[Image.Image], scenes: Sequence[Scene]) -> Share:
        """How many images show all five attributes of their scenes."""
        seen = self.look(images)
        return Share(sum(one == scene.attributes() for one, scene in zip(seen, scenes)), len(scenes))


def diffusers_unet(file: Path) -> nn.Module:
    """diffusers' UNet of the shipped model, which has loaded a LoRA as its `load_lora_weights` does. Needs peft."""
    unet = diffusers_pipeline(load(device="cpu"), bundled_path()).unet  # type: ignore[attr-defined]
    unet.load_lora_adapter(file.parent, prefix="unet", weight_name=file.name)
    return unet

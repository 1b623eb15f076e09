"""The lessons' drawings and tests: sleeping elephants, animals dressed for winter, and a classifier that decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.evaluate.metrics import Share
from ldm_course.evaluate.reference import diffusers_pipeline
from ldm_course.images import to_tensor
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.scenes import ATTRIBUTES, Scene, is_held_out, random_mention, random_scene
from ldm_course.scenes.drawing import draw
from ldm_course.scenes.svg import Piece, document, rasterise

ELEPHANT = {"animal": "elephant", "action": "sleeping"}
COLOURS = ("white", "black", "brown", "orange", "pink", "blue", "brown", "white")
WORN = (None, "glasses", None, "hat", "scarf", None, "headphones", None)
PLACES = ("beach", "forest", "city", "snow", "room", "beach", "forest", "room")
WINTER = ("hat", "scarf")
DRESSED = ("dog", "cat", "rabbit", "bear", "pig", "elephant", "cat", "dog")
SECOND = 0.005  # least probability of the second accessory; a scene with only one of them stays below 0.0005


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


def wearing(scene: Scene, one: str, other: str) -> Image.Image:
    """The scene with two accessories at once, 128 x 128 pixels; glasses, which change the eyes, must come first."""
    first, second = (draw(replace(scene, accessory=worn)) for worn in (one, other))
    pieces = [Piece(a.part, a.svg + b.svg if a.part == "accessory" else a.svg) for a, b in zip(first, second)]
    return rasterise(document(pieces), 128)


def winter() -> tuple[list[Image.Image], list[list[str]]]:
    """Eight animals with a hat and a scarf, and of each eight captions that end in "dressed for winter"."""
    rng = random.Random("winter")
    scenes = [replace(random_scene(rng), animal=animal, accessory=None) for animal in DRESSED]
    scenes = [replace(scene, action="running") if is_held_out(scene) else scene for scene in scenes]
    texts = []
    for i, scene in enumerate(scenes):
        rng = random.Random(i)
        said = [[name for name in ("colour", "place", "action") if rng.random() < 0.6] for _ in range(8)]
        texts.append([f"{scene.caption(rng, ('animal', *names))} dressed for winter" for names in said])
    return [wearing(scene, *WINTER) for scene in scenes], texts


def test_scenes(count: int, seed: int = 0, **fixed: str) -> list[Scene]:
    """Scenes at random, none held out but for what is fixed, such as action="sleeping"."""
    rng = random.Random(f"test-{seed}-{fixed}")
    return [replace(random_scene(rng), **fixed) for _ in range(count)]  # type: ignore[arg-type]


def full_captions(scenes: Sequence[Scene], seed: int = 0) -> list[str]:
    """A random wording of all five attributes of each scene."""
    return [scene.caption(random.Random(f"full-{seed}-{i}"), tuple(ATTRIBUTES)) for i, scene in enumerate(scenes)]


def captions(scenes: Sequence[Scene], *names: str) -> list[str]:
    """The plainest wording of some attributes of each scene."""
    return [scene.caption(None, names) for scene in scenes]


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

    @torch.no_grad()
    def wears(self, images: Sequence[Image.Image], one: str, other: str) -> list[bool]:
        """Whether each image shows both accessories: they are the two most probable, and none is below SECOND."""
        logits = self.classifier(to_tensor(images))["accessory"]
        probability, index = logits.softmax(1).topk(2)
        both = {ATTRIBUTES["accessory"].index(name) for name in (one, other)}
        return [set(two) == both and p[1] > SECOND for two, p in zip(index.tolist(), probability.tolist())]


def diffusers_unet(file: Path) -> nn.Module:
    """diffusers' UNet of the shipped model, which has loaded a LoRA as its `load_lora_weights` does. Needs peft."""
    unet = diffusers_pipeline(load(device="cpu"), bundled_path()).unet  # type: ignore[attr-defined]
    unet.load_lora_adapter(file.parent, prefix="unet", weight_name=file.name)
    return unet

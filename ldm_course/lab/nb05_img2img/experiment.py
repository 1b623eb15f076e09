"""The experiment of notebook 05: what image-to-image changes, and what it leaves, at each strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ldm_course.evaluate.classifier import Classifier, classify
from ldm_course.images import to_tensor
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import img2img, txt2img
from ldm_course.scenes import Scene

UNPROMPTED = ("colour", "action")  # the attributes that the prompts of `sweep_strength` do not mention


@dataclass(frozen=True)
class StrengthSweep:
    """Measurements of n images at each of s strengths.

    images: s lists of n.
    distance: to the input, (s, n), the root mean square over the pixels, whose whole range counts as 1.
    accessory, place: 1 where the classifier sees what the prompt asks for, else 0, (s, n).
    kept: the share of colour and action that is still the input's, (s, n).
    """

    images: list[list[Image.Image]]
    distance: Tensor
    accessory: Tensor
    place: Tensor
    kept: Tensor


def sweep_strength(
    model: LatentDiffusion,
    classifier: Classifier,
    scenes: Sequence[Scene],
    targets: Sequence[Scene],
    strengths: Sequence[float | None],
    num_inference_steps: int = 20,
) -> StrengthSweep:
    """Repaint each scene after the accessory and place of its target, image i with seed i, and measure the results.

    Args:
        scenes: n scenes to start from.
        targets: n scenes; the prompt, such as "a dog with glasses in the snow", names animal, accessory and place.
        strengths: None stands for text-to-image, without an input.
    """
    inputs = [scene.render(model.native_size) for scene in scenes]
    prompts = [target.caption(attributes=["accessory", "place"]) for target in targets]
    before = to_tensor(inputs)
    images, rows = [], []
    for strength in strengths:
        if strength is None:
            results = txt2img(model, prompts, seed=0, num_inference_steps=num_inference_steps)
        else:
            results = img2img(
                model, prompts, inputs, strength=strength, seed=0, num_inference_steps=num_inference_steps
            )
        after = to_tensor(results)
        attributes = classify(classifier, after)
        images.append(results)
        rows.append(
            (
                (after - before).square().mean(dim=(1, 2, 3)).sqrt() / 2,
                _agreement(attributes, targets, ("accessory",)),
                _agreement(attributes, targets, ("place",)),
                _agreement(attributes, scenes, UNPROMPTED),
            )
        )
    return StrengthSweep(images, *(torch.stack(column) for column in zip(*rows)))


def _agreement(attributes: list[dict[str, str]], scenes: Sequence[Scene], names: Sequence[str]) -> Tensor:
    """The share of the named attributes in which each image agrees with its scene, (n,)."""
    pairs = [(seen, scene.attributes()) for seen, scene in zip(attributes, scenes)]
    right = [[seen[name] == truth[name] for name in names] for seen, truth in pairs]
    return torch.tensor(right, dtype=torch.float32, device="cpu").mean(dim=1)

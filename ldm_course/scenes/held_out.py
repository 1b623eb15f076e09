"""The combinations that no model of the course is ever trained on.

CLIP, VAE and UNet see only scenes that match none of these, so an image of "a dog with glasses" is composed,
not remembered. Only the classifier that scores the images may train on them. Every single value (glasses, dogs,
pink, snow, ...) still occurs in many other combinations. The UNet also sees chimeras, which have some parts of a
held-out combination, never the animal's head and face together (`scenes.chimera`).
"""

from __future__ import annotations

from collections.abc import Mapping

from ldm_course.scenes.description import Description

HELD_OUT: tuple[dict[str, str], ...] = (
    {"animal": "dog", "accessory": "glasses"},
    {"animal": "cat", "accessory": "crown"},
    {"animal": "rabbit", "accessory": "scarf"},
    {"animal": "bear", "accessory": "headphones"},
    {"animal": "pig", "accessory": "hat"},
    {"animal": "elephant", "accessory": "crown"},
    {"animal": "cat", "colour": "pink"},
    {"animal": "bear", "colour": "blue"},
    {"animal": "elephant", "action": "sleeping"},
    {"animal": "rabbit", "place": "city"},
)
"""A scene is held out if it has all the values of at least one of these."""


def is_held_out(scene: Description | Mapping[str, str]) -> bool:
    """Whether a scene, or a mapping of attributes (partial ones too), contains a held-out combination."""
    values = scene if isinstance(scene, Mapping) else scene.attributes()
    return any(all(values.get(name) == value for name, value in pair.items()) for pair in HELD_OUT)

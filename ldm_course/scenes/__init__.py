"""The small world: cartoon scenes that render themselves, their captions and the masks of their parts."""

from __future__ import annotations

from ldm_course.scenes.captions import random_caption, random_mention
from ldm_course.scenes.held_out import HELD_OUT, is_held_out
from ldm_course.scenes.scene import Scene, random_scene, training_scene
from ldm_course.scenes.sheet import attribute_scenes, contact_sheet
from ldm_course.scenes.vocabulary import ATTRIBUTES, PARTS

__all__ = [
    "ATTRIBUTES",
    "HELD_OUT",
    "PARTS",
    "Scene",
    "attribute_scenes",
    "contact_sheet",
    "is_held_out",
    "random_caption",
    "random_mention",
    "random_scene",
    "training_scene",
]

"""The small world: cartoon scenes that draw themselves, caption themselves and know their parts' masks."""

from __future__ import annotations

from .captions import random_caption, random_mention
from .held_out import HELD_OUT, is_held_out
from .scene import Scene, random_scene, training_scene
from .sheet import attribute_scenes, contact_sheet
from .vocabulary import ATTRIBUTES, PARTS

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

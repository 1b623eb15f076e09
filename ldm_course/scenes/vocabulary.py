"""The words of the small world: every attribute and its values."""

from __future__ import annotations

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "rabbit", "bear", "pig", "elephant"),
    "colour": ("white", "black", "brown", "orange", "pink", "blue"),
    "accessory": ("none", "glasses", "hat", "crown", "scarf", "headphones"),
    "action": ("sitting", "running", "sleeping"),
    "place": ("beach", "forest", "city", "snow", "room"),
}
"""Attribute name -> its values. In a `Scene`, accessory "none" is stored as None."""

PARTS: tuple[str, ...] = ("face", "eyes", "body", "legs", "tail", "accessory", "animal", "background")
"""What `Scene.mask` can show. "face" contains "eyes"; "animal" is everything but "background"."""

"""What a scene shows, as plain values: five attributes and how the image varies."""

from __future__ import annotations

from dataclasses import dataclass

from ldm_course.errors import InputError
from ldm_course.scenes.vocabulary import ATTRIBUTES

RANGES = {
    "x": 6.0,
    "y": 3.0,
    "size": 0.12,
    "tilt": 8.0,
    "fur_shade": 1.0,
    "gaze": 1.0,
    "background_hue": 1.0,
    "background_light": 1.0,
    "background_shift": 1.0,
    "background_spread": 1.0,
}
"""How far `random_scene` goes to either side of each field's default."""


@dataclass(frozen=True)
class Description:
    """One image, described by five attributes and by how it varies. The defaults give a neutral image.

    Any number up to 1000 is accepted for the variation; `random_scene` stays within `RANGES`. InputError for a larger
    one, for an attribute that is not among `ATTRIBUTES`, and for a size of 0 or less.
    """

    animal: str = "dog"
    colour: str = "brown"
    accessory: str | None = None
    action: str = "sitting"
    place: str = "beach"
    x: float = 0.0
    """The animal's offset to the right, in pixels of a 128 px image."""
    y: float = 0.0
    """Its offset downwards, in the same pixels."""
    size: float = 1.0
    """Its scale."""
    facing: str = "right"
    """The side it looks to: "left" or "right"."""
    tilt: float = 0.0
    """Rotation of the head, in degrees."""
    fur_shade: float = 0.0
    """-1 darker to 1 lighter."""
    gaze: float = 0.0
    """-1 to 1: where the pupils are."""
    smile: float = 0.5
    """0 shut to 1 open."""
    background_hue: float = 0.0
    """-1 to 1: turns the background's hues by up to 7 degrees."""
    background_light: float = 0.0
    """-1 darker to 1 lighter."""
    background_shift: float = 0.0
    """-1 to 1: moves some of the background's shapes."""
    background_spread: float = 0.0
    """-1 to 1: moves the others."""

    def __post_init__(self) -> None:
        if isinstance(self.accessory, str) and self.accessory == "none":
            object.__setattr__(self, "accessory", None)
        for name, allowed in (*ATTRIBUTES.items(), ("facing", ("left", "right"))):
            value = getattr(self, name)
            if not (isinstance(value, str) and value in allowed) and not (name == "accessory" and value is None):
                raise InputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
        for name in (*RANGES, "smile"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not abs(value) <= 1000:  # far larger ones crash the renderer
                raise InputError(f"{name} must be a number from -1000 to 1000, not {value!r}.")
        if self.size <= 0:
            raise InputError(f"size must be above 0, not {self.size!r}.")

    def attributes(self) -> dict[str, str]:
        """The five attributes and their values; a missing accessory is "none"."""
        return {name: getattr(self, name) or "none" for name in ATTRIBUTES}

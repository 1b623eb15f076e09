"""Put a scene together: background, body, head, accessory, from back to front."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ldm_course.scenes.accessories import on_top, under_eyes, under_nose
from ldm_course.scenes.bodies import BODIES, HEAD_AT, dust, shadow, snores
from ldm_course.scenes.description import Description
from ldm_course.scenes.heads import HEADS, coat, eyes
from ldm_course.scenes.places import PLACES
from ldm_course.scenes.svg import Piece, adjust, moved


def background(scene: Description) -> str:
    """The place, its colours turned a little by `background_hue` and `background_light`."""
    svg = PLACES[scene.place](scene.background_shift, scene.background_spread)
    hue, light = 0.02 * scene.background_hue, 0.03 * scene.background_light
    return re.sub(r"#[0-9a-f]{6}", lambda match: adjust(match[0], hue, light), svg)


def head(scene: Description, animals: Mapping[str, str]) -> list[Piece]:
    """The head with its eyes and accessory, around (0, 0); `animals` as for `draw`."""
    fur = coat(scene.colour, scene.fur_shade)
    asleep = scene.action == "sleeping"
    smile = 0.0 if asleep else scene.smile
    back, front = HEADS[animals["head"]](fur, smile)[0], HEADS[animals["face"]](fur, smile)[1]
    return [
        Piece("face", back),
        Piece("accessory", under_eyes(scene.accessory)),
        Piece("eyes", eyes(fur, asleep, scene.gaze, scene.accessory == "glasses")),
        Piece("accessory", under_nose(scene.accessory)),
        Piece("face", front),
        Piece("accessory", on_top(scene.accessory)),
    ]


def draw(scene: Description, animals: Mapping[str, str] | None = None) -> list[Piece]:
    """All pieces of the scene, the farthest first.

    animals: which animal's "head" (with the ears), "face" (nose, mouth, trunk) and "body" it has; None is its own.
    """
    animals = animals or dict.fromkeys(("head", "face", "body"), scene.animal)
    x, y = HEAD_AT[scene.action]
    animal = [Piece("background", shadow(scene.action))]
    if scene.action == "running":
        animal.append(Piece("background", dust()))
    animal += BODIES[scene.action](animals["body"], coat(scene.colour, scene.fur_shade))
    animal += moved(head(scene, animals), f"translate({x} {y}) rotate({scene.tilt})")

    mirror = -1 if scene.facing == "left" else 1
    if scene.action == "sleeping":  # the sleeper is drawn with its head at the left
        mirror = -mirror
    size = scene.size
    place = f"translate({64 + scene.x} {66 + scene.y}) scale({mirror * size} {size}) translate(-64 -66)"
    pieces = [Piece("background", background(scene)), *moved(animal, place)]
    if scene.action == "sleeping":  # letters are never mirrored
        side = 74 if mirror == 1 else 22
        pieces.append(Piece("background", snores(side + scene.x, 50 + scene.y)))
    return pieces

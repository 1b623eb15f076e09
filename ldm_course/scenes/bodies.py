"""Bodies for the three actions, in image coordinates, facing right; `HEAD_AT` says where the head goes."""

from __future__ import annotations

from ldm_course.scenes.heads import Fur
from ldm_course.scenes.svg import Piece, adjust, limb, line, oval, path, shaded

HEAD_AT = {"sitting": (64.0, 51.0), "running": (65.0, 51.0), "sleeping": (48.0, 78.0)}
"""Middle of the head. Sitting and running nearly agree, so that the lower half alone tells them apart."""
LEG_WIDTH = {"dog": 11, "cat": 9, "rabbit": 10, "bear": 14, "pig": 11, "elephant": 15}
GIRTH = {"dog": 1.0, "cat": 0.92, "rabbit": 0.94, "bear": 1.12, "pig": 1.1, "elephant": 1.12}
"""Width of the body: 1 is 56 px when sitting."""


def tail(animal: str, fur: Fur, x: float, y: float) -> str:
    """A tail that starts at (x, y) and points to the left and up."""
    if animal == "rabbit":
        return shaded(oval(x - 6, y - 1, 9, 9), fur.light, fur.shade, fur.outline)
    if animal == "bear":
        return shaded(oval(x - 3, y, 7, 7), fur.base, fur.shade, fur.outline)
    if animal == "pig":
        curl = f"M{x} {y}q-13 3 -13 -6q0 -7 7 -6"
        return limb(curl, 4, fur.base, fur.outline)
    if animal == "elephant":
        rope = limb(f"M{x} {y}q-12 -2 -15 9", 4, fur.base, fur.outline)
        return rope + path(oval(x - 15, y + 11, 4.5, 6), fur.shade, fur.outline)
    if animal == "cat":
        return limb(f"M{x} {y}c-14 2 -20 -8 -15 -18c3 -6 1 -10 -4 -12", 7, fur.base, fur.outline)
    return limb(f"M{x} {y}q-15 -3 -17 -18", 9, fur.base, fur.outline)


def sitting(animal: str, fur: Fur) -> list[Piece]:
    """Upright and compact, seen from the front: two front legs, two hind feet, the tail at the left."""
    w, leg = GIRTH[animal], LEG_WIDTH[animal]
    s = 28 * w
    body = (
        f"M64 64C{64 + 0.7 * s} 64 {64 + s} 92 {64 + s} 106C{64 + s} 121 {64 - s} 121 {64 - s} 106"
        f"C{64 - s} 92 {64 - 0.7 * s} 64 64 64z"
    )
    feet = "".join(
        shaded(oval(64 + side * s * 0.9, 114, 11, 7), fur.base, fur.shade, fur.outline) for side in (-1, 1)
    )
    front = "".join(
        limb(f"M{64 + side * 9} 94L{64 + side * 9.5} {116 - leg / 2}", leg, fur.base, fur.outline)
        + path(oval(64 + side * 10, 116, leg * 0.72, 5.5), fur.base, fur.outline)
        + path(f"M{64 + side * 9 - leg / 2 - 3} 97h{leg + 6}v-15h{-leg - 6}z", fur.base)
        for side in (-1, 1)
    )
    return [
        Piece("tail", tail(animal, fur, 64 - s + 4, 106)),
        Piece("body", shaded(body, fur.base, fur.shade, fur.outline, -4, -2)),
        Piece("legs", feet + front),
        Piece("body", path(oval(64, 85, 14 * w, 13), fur.light)),
    ]


def running(animal: str, fur: Fur) -> list[Piece]:
    """Stretched out from left to right, seen from the side, four legs flung wide."""
    w, leg = GIRTH[animal], LEG_WIDTH[animal]
    h = 15 * w
    far = adjust(fur.shade, 0, -0.03)
    body = (
        f"M22 84C22 {84 - h} 44 {82 - h} 62 {82 - h}C88 {82 - h} 102 76 102 86"
        f"C102 {88 + h} 80 {87 + h} 62 {86 + h}C40 {85 + h} 22 {86 + h} 22 84z"
    )
    back_legs = limb("M38 92Q30 99 24 109", leg, far, fur.outline) + limb(
        "M84 92Q96 98 101 108", leg, far, fur.outline
    )
    near_legs = limb("M32 88Q20 90 12 101", leg, fur.base, fur.outline)
    near_legs += limb("M90 88Q105 88 113 99", leg, fur.base, fur.outline)
    seams = path(oval(36, 85, leg * 0.9, leg * 0.7), fur.base) + path(oval(88, 85, leg * 0.9, leg * 0.7), fur.base)
    return [
        Piece("tail", tail(animal, fur, 25, 80)),
        Piece("legs", back_legs),
        Piece("body", shaded(body, fur.base, fur.shade, fur.outline, 0, -6)),
        Piece("legs", near_legs + seams),
    ]


def sleeping(animal: str, fur: Fur) -> list[Piece]:
    """A rounded lump on the ground behind the head (the head lies at the left, the tail at the right)."""
    w, leg = GIRTH[animal], LEG_WIDTH[animal]
    top = 92 - 26 * w
    lump = f"M36 112C30 84 52 {top} 82 {top}C110 {top} 121 92 118 108Q117 115 108 115H44Q37 115 36 112z"
    flipped = f'<g transform="translate(226 6) scale(-1 1)">{tail(animal, fur, 113, 98)}</g>'
    foot = shaded(oval(100, 112, leg * 1.0, 6.5), fur.base, fur.shade, fur.outline)
    paw = "".join(limb(d, leg, fur.base, fur.outline) for d in ("M44 109H34", "M52 109H64"))
    return [
        Piece("tail", flipped),
        Piece("body", shaded(lump, fur.base, fur.shade, fur.outline, -5, -5)),
        Piece("body", line("M84 106Q88 92 102 92", fur.outline, 2.4)),
        Piece("legs", foot + paw),
    ]


BODIES = {"sitting": sitting, "running": running, "sleeping": sleeping}


def shadow(action: str) -> str:
    """A soft shadow on the ground."""
    width, x = {"sitting": (38, 64), "running": (50, 62), "sleeping": (52, 68)}[action]
    return f'<g opacity="0.18">{path(oval(x, 117, width, 7), "#1b1830")}</g>'


def dust() -> str:
    """Puffs behind a runner that faces right."""
    return "".join(
        path(oval(x, y, r, 0.8 * r), "#fffdf6", "#8d8791", 2)
        for x, y, r in ((7, 110, 7), (32, 118, 8), (18, 117, 10))
    )


def snores(x: float, y: float) -> str:
    """Two big letters z, the lower one at (x, y)."""
    small = f"M{x} {y}h10l-10 11h10"
    big = f"M{x + 16} {y - 24}h15l-15 16h15"
    letters = small + big
    return line(letters, "#2d3472", 7.6) + line(letters, "#ffffff", 3.8)

"""The six heads, seen from the front, looking slightly to the right.

Coordinates are relative to the middle of the head: it reaches from about -29 to 29 in x and -26 to 26 in y.
All animals have their eyes in the same place, so that one pair of glasses fits them all. Each head is two
drawings: what lies behind the eyes and the accessory, and what lies in front (nose, mouth, trunk).
"""

from __future__ import annotations

from typing import NamedTuple

from ldm_course.scenes.svg import adjust, limb, line, oval, path, shaded

EYES = ((-13.0, -3.0), (15.0, -3.0))
"""Centres of the two eyes."""
INK = "#241f2b"
BLUSH = "#f08a9c"


class Fur(NamedTuple):
    """The colours of one coat, each "#rrggbb"."""

    base: str
    shade: str
    light: str
    outline: str
    mark: str
    """Thin marks on the coat: shut lids and whiskers."""
    ear: str
    """The inside of the ears."""


FURS = {
    "white": Fur("#fbfaf6", "#d5d6e0", "#ffffff", "#4b4759", "#4b4759", "#f3a3ad"),
    "black": Fur("#484652", "#34323c", "#b3b0be", "#16141b", "#f1eff7", "#f3a3ad"),
    "brown": Fur("#8a5230", "#6c3d21", "#e2bd94", "#331c10", "#331c10", "#f0a39f"),
    "orange": Fur("#f79a2c", "#dd7a17", "#ffe5ba", "#57290a", "#57290a", "#f9a9a4"),
    "pink": Fur("#f9a3c6", "#e57fab", "#ffe0ec", "#6d2a48", "#6d2a48", "#ffd3e3"),
    "blue": Fur("#4d8fe6", "#3670c4", "#cbe2fc", "#182c5c", "#182c5c", "#f3a3ad"),
}


def coat(colour: str, fur_shade: float) -> Fur:
    """The coat of a colour, darker or lighter: `fur_shade` from -1 to 1."""
    fur = FURS[colour]
    base, shade, light = (adjust(c, 0.006 * fur_shade, 0.035 * fur_shade) for c in (fur.base, fur.shade, fur.light))
    return fur._replace(base=base, shade=shade, light=light)


def mouth(y: float, smile: float) -> str:
    """A "w" of a mouth with an open part under it; `smile` 0 (shut) to 1 (open)."""
    depth = 3 + 6 * smile
    top, chin = y + 2, y + 2 + depth
    opening = f"M-5.5 {top}Q1 {top + 3} 7.5 {top}Q6 {chin} 1 {chin + 1}Q-4 {chin} -5.5 {top}z"
    lips = line(f"M-9 {y - 1}Q-6 {y + 4} 1 {y}Q8 {y + 4} 11 {y - 1}", INK, 2.2)
    return path(opening, "#e0526a", INK, 1.8) + lips if smile > 0.25 else lips


def blush(y: float = 9) -> str:
    """Two rosy cheeks."""
    ovals = path(oval(-21, y, 5, 3.5), BLUSH) + path(oval(22, y, 5, 3.5), BLUSH)
    return f'<g opacity="0.55">{ovals}</g>'


def dog(fur: Fur, smile: float) -> tuple[str, str]:
    """Long hanging ears, a light muzzle and a big nose."""
    head = "M0 -26C18 -27 28 -14 28 2C28 18 16 26 0 26C-16 26 -28 18 -28 2C-28 -14 -18 -27 0 -26z"
    left = "M-17 -24C-31 -27 -40 -16 -40 0C-40 14 -37 24 -31 24C-24 24 -21 10 -21 -2C-21 -10 -20 -18 -17 -24z"
    right = "M17 -24C31 -27 40 -16 40 0C40 14 37 24 31 24C24 24 21 10 21 -2C21 -10 20 -18 17 -24z"
    ear = adjust(fur.shade, 0, -0.05)
    back = (
        shaded(head, fur.base, fur.shade, fur.outline)
        + path(oval(1, 13, 16, 11.5), fur.light)
        + path(left, ear, fur.outline, 2.4)
        + path(right, ear, fur.outline, 2.4)
    )
    nose = path("M-6 5C-6 1 8 1 8 5C8 9 4 12 1 12C-2 12 -6 9 -6 5z", INK) + path(oval(-1.5, 5, 2, 1.4), "#ffffff")
    return back, mouth(15, smile) + nose


def cat(fur: Fur, smile: float) -> tuple[str, str]:
    """Pointed ears, wide cheeks with whiskers, a tiny pink nose."""
    head = (
        "M0 -22C10 -22 18 -20 22 -14C30 -6 34 4 30 12C25 22 14 26 0 26"
        "C-14 26 -25 22 -30 12C-34 4 -30 -6 -22 -14C-18 -20 -10 -22 0 -22z"
    )
    ears = [
        ("M-28 0L-30 -38Q-28 -41 -24 -38L-4 -20z", "M-24 -14L-26 -31L-12 -20z"),
        ("M28 0L30 -38Q28 -41 24 -38L4 -20z", "M24 -14L26 -31L12 -20z"),
    ]
    back = "".join(path(ear, fur.base, fur.outline) + path(inner, fur.ear) for ear, inner in ears)
    back += shaded(head, fur.base, fur.shade, fur.outline) + path(oval(1, 14, 13, 9), fur.light)
    sides = line("M-19 11L-36 8M-19 16L-35 19M20 11L37 8M20 16L36 19", fur.mark, 2)
    nose = path("M-4 7Q1 5 6 7Q5 11 1 13Q-3 11 -4 7z", "#ec6f8b", INK, 1.4)
    return back + blush(7), sides + mouth(15, smile) + nose


def rabbit(fur: Fur, smile: float) -> tuple[str, str]:
    """Two long upright ears, round cheeks, two big teeth."""
    head = "M0 -24C15 -24 25 -14 28 0C31 14 20 26 0 26C-20 26 -31 14 -28 0C-25 -14 -15 -24 0 -24z"
    ears = [f"rotate({angle} {x} -16)" for angle, x in ((-34, -15), (36, 15))]
    back = ""
    for turn, x in zip(ears, (-15, 15), strict=True):
        ear = f"M{x - 8} -12C{x - 13} -34 {x - 8} -50 {x} -50C{x + 8} -50 {x + 13} -34 {x + 8} -12z"
        inner = f"M{x - 4} -18C{x - 7} -32 {x - 4} -43 {x} -43C{x + 4} -43 {x + 7} -32 {x + 4} -18z"
        back += f'<g transform="{turn}">{path(ear, fur.base, fur.outline)}{path(inner, fur.ear)}</g>'
    back += shaded(head, fur.base, fur.shade, fur.outline)
    back += path(oval(-7, 13, 9.5, 7.5), fur.light) + path(oval(9, 13, 9.5, 7.5), fur.light) + blush(10)
    teeth = path("M-3.5 14.5H5.5V22Q5.5 24 3.5 24H-1.5Q-3.5 24 -3.5 22z", "#ffffff", INK, 1.6)
    teeth += line("M1 15V23", INK, 1.4)
    nose = path("M-4 6Q1 4 6 6Q5 10 1 12Q-3 10 -4 6z", "#ec6f8b", INK, 1.4)
    return back, teeth + line(f"M-8 {13 - smile}Q-6 17 1 14Q8 17 10 {13 - smile}", INK, 2.2) + nose


def bear(fur: Fur, smile: float) -> tuple[str, str]:
    """Two round ears on a round head, a big light muzzle."""
    head = "M0 -25C17 -25 30 -14 30 2C30 18 17 26 0 26C-17 26 -30 18 -30 2C-30 -14 -17 -25 0 -25z"
    back = "".join(
        path(oval(x, -20, 12.5, 12.5), fur.base, fur.outline) + path(oval(x, -19, 7, 7), fur.light) for x in (-25, 25)
    )
    back += shaded(head, fur.base, fur.shade, fur.outline) + path(oval(1, 13, 15.5, 11.5), fur.light)
    nose = path(oval(1, 7, 7, 5), INK) + path(oval(-1.5, 5.5, 2.2, 1.4), "#ffffff")
    return back, mouth(15.5, smile) + nose


def pig(fur: Fur, smile: float) -> tuple[str, str]:
    """Folded pointed ears and a broad snout with two nostrils."""
    head = "M0 -24C18 -24 31 -14 31 2C31 18 17 26 0 26C-17 26 -31 18 -31 2C-31 -14 -18 -24 0 -24z"
    ears = (
        "M-8 -21C-16 -32 -28 -34 -35 -30C-38 -20 -36 -10 -30 -5C-28 -14 -20 -20 -8 -21z",
        "M8 -21C16 -32 28 -34 35 -30C38 -20 36 -10 30 -5C28 -14 20 -20 8 -21z",
    )
    back = shaded(head, fur.base, fur.shade, fur.outline) + blush(9)
    back += "".join(path(ear, fur.shade, fur.outline) for ear in ears)
    low = 26 + 2 * smile
    grin = path(f"M-9 18Q1 {low - 1} 11 18Q8 {low} 1 {low + 1}Q-6 {low} -9 18z", "#e0526a", INK, 1.8)
    snout = shaded(oval(1, 11.5, 15, 10.5), fur.light, fur.base, fur.outline, 0, -3)
    return back, grin + snout + path(oval(-4.5, 11.5, 3, 4.6), INK) + path(oval(6.5, 11.5, 3, 4.6), INK)


def elephant(fur: Fur, smile: float) -> tuple[str, str]:
    """Huge round ears and a long trunk that hangs down and curls."""
    head = "M0 -25C16 -25 26 -14 26 0C26 14 16 24 0 24C-16 24 -26 14 -26 0C-26 -14 -16 -25 0 -25z"
    ears = (
        "M-17 -17C-28 -31 -48 -28 -50 -8C-51 10 -40 25 -28 21C-21 18 -19 8 -19 -2z",
        "M17 -17C28 -31 48 -28 50 -8C51 10 40 25 28 21C21 18 19 8 19 -2z",
    )
    inner = (oval(-34, -4, 9, 14), oval(34, -4, 9, 14))
    back = "".join(
        shaded(ear, fur.base, fur.shade, fur.outline) + path(rose, fur.ear)
        for ear, rose in zip(ears, inner, strict=True)
    )
    back += shaded(head, fur.base, fur.shade, fur.outline) + blush(9)
    tusks = path("M-10 14Q-12 24 -17 26Q-8 28 -5 17z", "#fffbe8", fur.outline, 1.8)
    tusks += path("M12 14Q14 24 19 26Q10 28 7 17z", "#fffbe8", fur.outline, 1.8)
    curl = 37 - 4 * smile
    trunk = limb(f"M1 11C1 20 -1 28 6 31Q14 {curl} 21 26", 13, fur.base, fur.outline)
    folds = line("M-4.5 19H6", fur.shade, 2.4) + line("M-4 25.5H6", fur.shade, 2.4)
    return back, tusks + trunk + path(oval(1, 10, 6.5, 5), fur.base) + folds


HEADS = {"dog": dog, "cat": cat, "rabbit": rabbit, "bear": bear, "pig": pig, "elephant": elephant}


def eyes(fur: Fur, asleep: bool, gaze: float, glasses: bool) -> str:
    """Open eyes looking left or right (`gaze` -1 to 1), or two shut lids."""
    if asleep:
        lid = fur.outline if glasses else fur.mark  # lenses are light, whatever the coat
        return "".join(line(f"M{x - 7} {y}Q{x} {y + 8} {x + 7} {y}", lid, 3) for x, y in EYES)
    return "".join(
        path(oval(x, y, 6.6, 7.6), "#ffffff", INK, 1.6)
        + path(oval(x + 0.6 + 1.5 * gaze, y + 0.5, 4.8, 5.8), INK)
        + path(oval(x - 0.5 + 1.6 * gaze, y - 2.2, 2, 2.2), "#ffffff")
        for x, y in EYES
    )

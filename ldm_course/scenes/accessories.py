"""The five accessories, in the coordinates of the head (see heads.py), each in its own fixed colours.

They come in three layers: under the eyes (lenses, scarf), under the nose or trunk (frames), and on top.
"""

from __future__ import annotations

from ldm_course.scenes.heads import EYES
from ldm_course.scenes.svg import limb, line, oval, path, shaded

LENS, FRAME, RIM = "#d3f1ff", "#e3203f", "#3d0a1c"


def under_eyes(accessory: str | None) -> str:
    """Lenses and scarf: they lie on the head but behind the eyes, the nose and the trunk."""
    if accessory == "glasses":
        lenses = "".join(path(oval(x, y, 13.5, 13.5), LENS) for x, y in EYES)
        shine = "".join(line(f"M{x - 5} {y + 9}L{x + 9} {y - 5}", "#ffffff", 4) for x, y in EYES)
        return lenses + shine
    if accessory == "scarf":
        band = "M-28 17Q0 35 28 17L30 27Q28 32 22 34Q0 43 -22 34Q-28 32 -30 27z"
        end = "M-25 30L-11 35L-13 51Q-20 52 -28 48z"
        stripes = "M-17 23L-10 26L-12 38L-19 35zM17 23L10 26L12 38L19 35z"
        return (
            shaded(end, "#2fb457", "#1f8d41", "#0e3d1e")
            + path("M-26.6 39L-12 43L-12.6 48L-27.3 44z", "#fff3b0")
            + shaded(band, "#2fb457", "#1f8d41", "#0e3d1e")
            + path(stripes, "#fff3b0")
        )
    return ""


def under_nose(accessory: str | None) -> str:
    """The frames of the glasses: in front of the eyes, behind the nose and the trunk."""
    if accessory == "glasses":
        (left, y), (right, _) = EYES
        rims = oval(left, y, 13.5, 13.5) + oval(right, y, 13.5, 13.5)
        arms = f"M{left - 13.5} {y - 2}L-30 {y - 4}M{right + 13.5} {y - 2}L31 {y - 4}"
        return line(rims + arms, RIM, 6.4) + line(rims + arms, FRAME, 3.6)
    return ""


def on_top(accessory: str | None) -> str:
    """What is worn on top of the head."""
    if accessory == "hat":
        top = "M-18 -20L-17 -41Q0 -46 17 -41L18 -20Q0 -14 -18 -20z"
        band = "M-17.3 -23L-17.3 -31Q0 -26 17.3 -31L17.3 -23Q0 -17 -17.3 -23z"
        brim = "M-27 -21Q0 -30 27 -21Q30 -14 25 -13Q0 -19 -25 -13Q-30 -14 -27 -21z"
        return (
            shaded(brim, "#d92b3a", "#a61c2c", "#47091a", 0, -3)
            + shaded(top, "#e5354a", "#b31f33", "#47091a")
            + path(band, "#fff0c4")
        )
    if accessory == "crown":
        gold = "M-21 -15L-25 -39L-12 -29L0 -44L12 -29L25 -39L21 -15Q0 -9 -21 -15z"
        gems = path(oval(0, -20, 4.5, 4.5), "#e0284f", "#6b4300", 1.6)
        gems += path(oval(-13, -21, 3.6, 3.6), "#2e8be6", "#6b4300", 1.6)
        gems += path(oval(13, -21, 3.6, 3.6), "#2e8be6", "#6b4300", 1.6)
        return shaded(gold, "#ffd429", "#e8a90c", "#6b4300") + gems
    if accessory == "headphones":
        band = limb("M-32 0C-34 -42 34 -42 32 0", 6, "#17cdb4", "#06403c")
        cups = "".join(
            shaded(f"M{x - 8} -9Q{x} -17 {x + 8} -9V13Q{x} 21 {x - 8} 13z", "#17cdb4", "#0c9c8b", "#06403c")
            + path(oval(x, 2, 3.6, 8), "#eafffb")
            for x in (-32, 32)
        )
        return band + cups
    return ""

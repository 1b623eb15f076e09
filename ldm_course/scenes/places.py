"""The five backgrounds: a few large flat shapes each, without outlines, so that the animal stands out.

Every place takes `shift` and `spread` (both -1 to 1), which move its shapes by up to about 12 px.
"""

from __future__ import annotations

from ldm_course.scenes.svg import line, oval, path


def rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    """A filled rectangle."""
    return path(f"M{x} {y}h{width}v{height}h{-width}z", fill)


def beach(shift: float, spread: float) -> str:
    """Sky, sun, sea, sand and a palm."""
    sea = 56 + 4 * spread
    sun = path(oval(22 + 10 * shift, 20 - 4 * spread, 12, 12), "#ffd94a")
    x = 112 + 8 * spread
    palm = line(f"M{x} 92Q{x + 4} 60 {x - 6} 32", "#a8703c", 7)
    leaves = "".join(
        f'<g transform="rotate({angle} {x - 6} 30)">{path(oval(x + 8, 30, 17, 6), "#2f9e58")}</g>'
        for angle in (-100, -45, 15, 65, 125, 170, 220)
    )
    sand = path(f"M-2 {82 + 3 * shift}Q40 {74 - 4 * spread} 80 {82 + 3 * spread}T130 80V130H-2z", "#f7dd9b")
    foam = path(f"M-2 {79 + 3 * shift}Q40 {71 - 4 * spread} 80 {79 + 3 * spread}T130 77V130H-2z", "#f4fbff")
    return rect(-2, -2, 132, 132, "#bfeafa") + sun + rect(-2, sea, 132, 40, "#2fa9d8") + foam + sand + palm + leaves


def forest(shift: float, spread: float) -> str:
    """Three big trees on a meadow."""
    out = rect(-2, -2, 132, 132, "#d5efb8") + path("M-2 64Q64 50 130 64V130H-2z", "#a9d67f")
    trees = (
        (64 + 14 * shift, 0.8, "#55a04c", "#67b259"),
        (12 + 8 * shift, 1.1, "#2e7d3c", "#3a8c48"),
        (116 + 8 * spread, 1.1, "#2e7d3c", "#3a8c48"),
    )
    for x, size, leaf, sunlit in trees:
        out += rect(x - 6 * size, 36, 12 * size, 54, "#80522e")
        out += path(oval(x, 26, 27 * size, 25 * size), leaf) + path(oval(x - 4, 18, 18 * size, 14 * size), sunlit)
    return out + path(f"M-2 {86 + 2 * shift}Q64 {76 + 3 * spread} 130 {86 - 2 * shift}V130H-2z", "#6dbb52")


def city(shift: float, spread: float) -> str:
    """Tall buildings with a few large windows along a street."""
    out = rect(-2, -2, 132, 132, "#ffe0c7")
    blocks = (
        (-8 + 6 * shift, 22 + 6 * spread, 38, "#8d7fb8"),
        (34 + 6 * spread, 40 - 8 * shift, 34, "#b493b9"),
        (66 + 6 * spread, 14 + 6 * shift, 32, "#7a86bd"),
        (102 + 6 * shift, 32 - 6 * spread, 38, "#9a7fae"),
    )
    for x, top, width, wall in blocks:
        out += rect(x, top, width, 100, wall)
        for row in range(3):
            y = top + 8 + 21 * row
            out += rect(x + 5, y, 10, 13, "#ffe98a") + rect(x + width - 15, y, 10, 13, "#ffe98a")
    return out + rect(-2, 84, 132, 8, "#d8d3dc") + rect(-2, 92, 132, 40, "#8f8d9c")


def snow(shift: float, spread: float) -> str:
    """Pale sky, white hills and two firs."""
    out = rect(-2, -2, 132, 132, "#b9d7f0")
    out += path(
        f"M-2 {70 + 5 * shift}Q{30 + 10 * spread} {40 + 4 * shift} 70 66T130 {58 - 5 * shift}V130H-2z",
        "#dcebf8",
    )
    for x, size in ((14 + 10 * shift, 1.0), (114 + 8 * spread, 1.15)):
        for y, half in ((74, 22), (56, 18), (40, 13)):
            h = half * size
            out += path(f"M{x - h} {y + 12 * size}L{x} {y - 20 * size}L{x + h} {y + 12 * size}z", "#2f7471")
        low, tip = 40 - size, 40 - 21 * size
        out += path(f"M{x - 8 * size} {low}L{x} {tip}L{x + 8 * size} {low}z", "#ffffff")
    return out + path(f"M-2 {86 - 3 * shift}Q40 {74 + 3 * spread} 84 84T130 {82 + 3 * shift}V130H-2z", "#f3f8fd")


def room(shift: float, spread: float) -> str:
    """A warm wall with a window and a lamp, a wooden floor and a rug."""
    out = rect(-2, -2, 132, 132, "#f6c6a4") + rect(-2, 86, 132, 46, "#a9683f") + rect(-2, 82, 132, 6, "#fff1de")
    x, y = 4 + 10 * shift, 12 + 5 * spread
    out += rect(x, y, 40, 46, "#fff6e6") + rect(x + 5, y + 5, 30, 36, "#8fd0f2") + rect(x + 17.5, y, 5, 46, "#fff6e6")
    lamp = 110 + 8 * spread
    out += rect(lamp - 2.5, 40, 5, 46, "#6b4a56")
    out += path(f"M{lamp - 9} 20H{lamp + 9}L{lamp + 17} 44H{lamp - 17}z", "#ffdf6b")
    return out + path(oval(64 + 6 * shift, 116, 62, 15), "#8f4a68")


PLACES = {"beach": beach, "forest": forest, "city": city, "snow": snow, "room": room}

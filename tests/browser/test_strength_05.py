"""Notebook 05: the picture follows the strength while the mouse is down, and one draws on the easel."""

from __future__ import annotations

import pytest
from lab_page import excerpt

POINT = """
point = tuple(side // 2 for side in easel.drawing.size)
print(easel.drawing.getpixel(point))
"""


@pytest.fixture(scope="module")
def page(open_page):
    notebook = excerpt("05", names=["PROMPT", "scene"], cells=["drag", "own-drawing", "own"], extra={"point": POINT})
    page = open_page("strength", notebook)
    page.run_all()
    assert not page.problems()
    return page


def test_the_picture_changes_while_the_mouse_is_down(page):
    slider = page.cell("drag").get_by_role("slider")
    seen = [page.settled("drag")]

    def another() -> bool:
        picture = page.picture("drag")
        if picture not in seen:
            seen.append(picture)
            return True
        return False

    page.grab(slider)
    for strength in (0.5, 0.4, 0.3, 0.4, 0.5, 0.6, 0.7):
        page.move(slider, strength)
        if strength not in (0.4, 0.5, 0.6) or len(seen) < 4:  # on the way back, pictures may be known
            page.until(another, f"another picture comes at strength {strength}, the mouse still down")
    page.page.mouse.up()
    assert len(seen) >= 5
    assert not page.errors


def test_the_last_value_wins(page):
    """However quickly one drags, the picture is in the end the one of the value where one stopped."""
    slider = page.cell("drag").get_by_role("slider")
    for to in (0.9, 0.2, 0.9, 0.4):
        page.drag(slider, to, moves=4)
    quick = page.settled("drag")
    assert float(slider.get_attribute("aria-valuenow")) == 0.4
    assert page.follows("drag", lambda: slider.press("ArrowRight"))
    assert page.follows("drag", lambda: slider.press("ArrowLeft"))
    assert page.settled("drag") == quick
    assert not page.errors


def test_drawing_on_the_easel(page):
    own = page.cell("own")
    own.locator("input[type=color]").fill("#00ff00")
    canvas = own.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    y = box["y"] + box["height"] / 2

    def stroke() -> None:
        page.page.mouse.move(box["x"] + 0.3 * box["width"], y)
        page.page.mouse.down()
        page.page.mouse.move(box["x"] + 0.7 * box["width"], y, steps=10)
        page.page.mouse.up()

    assert page.follows("own", stroke)
    page.until(lambda: page.run("point").strip() == "(0, 255, 0)", "Python has the green stroke")
    assert not page.problems() and not page.errors

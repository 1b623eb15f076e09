"""Notebook 05: the picture follows the strength while the mouse is down, and one draws on the pad."""

from __future__ import annotations

import pytest
from lab_page import excerpt

EXTRA = {
    "named": "panel = nb.studio.panel(sampler, PROMPT)\npanel",
    "work": "print(panel.newest.value['strength'], panel.newest.cancelled, panel.newest._task.done())",
    "point": "side = pad.drawing.width\nprint(pad.drawing.getpixel((side // 2, side // 2)))",
}


@pytest.fixture(scope="module")
def page(open_page):
    notebook = excerpt("05", names=["PROMPT", "scene"], cells=["drag", "own"], extra=EXTRA)
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
    """However quickly one drags: work on older values is given up, and the picture is the last value's."""
    slider = page.cell("named").get_by_role("slider")

    def finished() -> tuple[bytes, int] | None:
        value, cancelled, done = page.run("work").split()
        return (page.settled("named"), int(cancelled)) if (value, done) == ("0.4", "True") else None

    page.drag(slider, 0.4)
    slow, before = page.until(finished, "the picture at 0.4 is painted")
    for to in (0.9, 0.2, 0.9, 0.4):
        page.drag(slider, to, moves=4)
    quick, after = page.until(finished, "the picture at 0.4 is painted again")
    assert quick == slow
    assert after > before
    assert not page.errors


def test_drawing_on_the_pad(page):
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

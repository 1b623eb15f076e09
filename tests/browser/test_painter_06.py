"""Notebook 06: what is painted by mouse and keys reaches Python, and only the hole is painted anew."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from lab_page import PROMPT, LabPage, excerpt
from PIL import Image

SIDE, BRUSH = 128, 21  # pixels of the picture


@pytest.fixture(scope="module")
def notebook(open_page):
    extra = {"mask": "print(painter.mask)", "picture": "print(painter.image)"}
    page = open_page("painter", excerpt("06", names=["scene", "quick"], cells=["paint", "paint-python"], extra=extra))
    page.run_all()
    assert not page.problems()
    return page


@pytest.fixture
def page(notebook):
    """With nothing painted; after the test JupyterLab must have had no part in it."""
    press(notebook, "Clear")
    wait_for_mask(notebook, lambda painted: not painted.any(), "nothing is painted")
    press(notebook, "Brush")
    notebook.settled("paint")  # while pictures come, the page may still move under the mouse
    yield notebook
    assert notebook.count() == len(notebook.ids), "JupyterLab took a key for a command of its own"
    assert not notebook.problems() and not notebook.errors


def press(page: LabPage, button: str) -> None:
    page.cell("paint").get_by_role("button", name=button, exact=True).click()


def canvas(page: LabPage):
    return page.cell("paint").locator("canvas")


def stroke(page: LabPage, *points: tuple[float, float]) -> None:
    """Paint along points, in pixels of the picture."""
    canvas(page).scroll_into_view_if_needed()
    box = canvas(page).bounding_box()
    places = [(box["x"] + x / SIDE * box["width"], box["y"] + y / SIDE * box["height"]) for x, y in points]
    page.page.mouse.move(*places[0])
    page.page.mouse.down()
    for place in places[1:]:
        page.page.mouse.move(*place, steps=10)
    page.page.mouse.up()


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def wait_for_mask(page: LabPage, condition, what: str) -> np.ndarray:
    """The mask as Python has it, (SIDE, SIDE) of bool, once it is as it should be."""
    seen = []

    def holds() -> bool:
        text = page.run("mask").strip()
        alpha = decoded(text).getchannel("A") if text else Image.new("L", (SIDE, SIDE))
        seen.append(np.asarray(alpha) >= 128)
        return condition(seen[-1])

    page.until(holds, what)
    return seen[-1]


def bar(left: float, right: float, y: float, width: float = BRUSH) -> np.ndarray:
    """What a level stroke covers."""
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return np.hypot(columns - columns.clip(left, right), rows - y) <= width / 2


def like(expected: np.ndarray):
    """A condition: this is painted, but for a few pixels at the edge."""
    return lambda painted: (painted ^ expected).sum() <= 0.08 * max(expected.sum(), 1)


def test_a_stroke_by_mouse_reaches_python(page):
    stroke(page, (32, 96), (96, 96))
    wait_for_mask(page, like(bar(32, 96, 96)), "the stroke is in Python")
    stroke(page, (64, 30), (64, 30))
    wait_for_mask(page, like(bar(32, 96, 96) | bar(64, 64, 30)), "a dot is there too")


def test_only_the_hole_is_painted_anew(page):
    prompt = page.cell("paint").locator("input[type=text]")
    page.by_keys("text", prompt)
    assert prompt.input_value() == PROMPT
    before = page.settled("paint")
    stroke(page, (20, 88), (108, 88), (20, 100), (108, 100), (20, 112), (108, 112))
    mask = wait_for_mask(page, lambda painted: painted.sum() > 3000, "the hole is in Python")
    page.until(lambda: page.picture("paint") != before, "another picture comes")
    shown = Image.open(io.BytesIO(page.settled("paint"))).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    picture = decoded(page.run("picture").strip()).convert("RGB")
    change = np.abs(np.asarray(shown, float) - np.asarray(picture, float)).mean(axis=2)
    rows = np.arange(SIDE)
    assert change[rows < 64].mean() < 4, "what the JPEG of the page loses, far from the hole"
    assert change[mask].mean() > 15
    report = page.run("paint-python")
    assert f"{mask.mean():.0%} of the pixels masked" in report
    assert "change outside of what you painted: 0.0" in report


def test_undo_and_clear_by_button(page):
    stroke(page, (32, 40), (96, 40))
    stroke(page, (32, 96), (96, 96))
    press(page, "Undo")
    wait_for_mask(page, like(bar(32, 96, 40)), "the second stroke is gone")
    press(page, "Clear")
    wait_for_mask(page, lambda painted: not painted.any(), "nothing is painted")
    press(page, "Undo")
    wait_for_mask(page, like(bar(32, 96, 40)), "the first stroke is back")


def test_erase_by_button(page):
    stroke(page, (32, 64), (96, 64))
    press(page, "Erase")
    stroke(page, (64, 40), (64, 90))
    gap = bar(40, 90, 64).T
    wait_for_mask(page, like(bar(32, 96, 64) & ~gap), "a gap is in the stroke")


def test_by_keys_alone(page):
    keys = page.page.keyboard
    box = canvas(page).bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)  # where the brush begins
    canvas(page).focus()
    for _ in range(4):
        keys.press("-")  # two pixels narrower
    keys.down(" ")
    for _ in range(10):
        keys.press("ArrowRight")  # a 64th of the picture
    keys.up(" ")
    line = bar(64, 84, 64, BRUSH - 8)
    wait_for_mask(page, like(line), "the line is in Python")
    canvas(page).focus()  # to look, a cell was clicked in
    keys.press("e")
    keys.down(" ")
    for _ in range(5):
        keys.press("ArrowLeft")
    keys.up(" ")
    wait_for_mask(page, lambda painted: 0 < painted.sum() < 0.7 * line.sum(), "half of it is erased")
    canvas(page).focus()
    keys.press("u")
    wait_for_mask(page, like(line), "the line is whole again")
    canvas(page).focus()
    keys.press("c")
    wait_for_mask(page, lambda painted: not painted.any(), "nothing is painted")
    canvas(page).focus()
    for _ in range(4):
        keys.press("+")
    page.until(
        lambda: page.cell("paint").get_by_label("Width of the brush").input_value() == f"{BRUSH}", "it is wide"
    )

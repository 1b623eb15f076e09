"""A page whose kernel has not run or is gone still says something, and comes to life again when it is run."""

from __future__ import annotations

import nbformat
import pytest
from lab_page import NOTEBOOKS, excerpt, saved_widgets


@pytest.mark.parametrize("number", sorted(NOTEBOOKS))
def test_before_anything_has_run(open_page, number):
    """A widget's place says what to do, and the contact sheet below is there."""
    notebook = nbformat.read(NOTEBOOKS[number], as_version=4)
    page = open_page(f"{NOTEBOOKS[number].stem}-not-run", notebook)
    words = saved_widgets(notebook.cells)
    assert words
    for name in words:
        assert page.text(name).strip() == words[name]
        sheet = page.cell(page.code[page.code.index(name) + 1]).locator(".jp-OutputArea img").first
        page.until(lambda sheet=sheet: sheet.evaluate("image => image.naturalWidth"), "the contact sheet is there")
    assert not page.errors
    page.close()


def test_05_after_a_restart(open_page):
    page = open_page("restart", excerpt("05", names=["PROMPT", "scene"], cells=["drag"]))
    page.run_all()
    page.settled("drag")
    page.restart_kernel()
    assert page.picture("drag"), "the last picture stays"
    slider = page.cell("drag").get_by_role("slider")
    page.by_mouse("slider", slider)
    page.by_keys("slider", slider)
    assert not page.errors and not page.problems()
    for name in page.code:
        page.run(name)
    slider = page.cell("drag").get_by_role("slider")
    assert page.follows("drag", lambda: page.by_mouse("slider", slider))
    assert not page.errors and not page.problems()
    page.close()

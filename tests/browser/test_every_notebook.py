"""Each notebook from top to bottom, and each of its widgets by mouse and by keys. `-k 05` picks a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import nbformat
import pytest
from lab_page import KEYS_ONLY, NOTEBOOKS, LabPage

if TYPE_CHECKING:
    from playwright.sync_api import Locator


@pytest.fixture(scope="module", params=sorted(NOTEBOOKS))
def page(request, open_page):
    """A notebook, all of whose cells have run."""
    path = NOTEBOOKS[request.param]
    page = open_page(path.stem, nbformat.read(path, as_version=4))
    page.run_all()
    yield page
    page.close()


def deaf(page: LabPage, move: Callable[[str, Locator], None], skip: tuple[str, ...] = ()) -> list[str]:
    """The controls that no picture follows."""
    controls = [(name, kind, control) for name in page.widgets for kind, control in page.controls(name)]
    assert controls
    return [
        f"{name}: {kind}"
        for name, kind, control in controls
        if kind not in skip and not page.follows(name, lambda kind=kind, control=control: move(kind, control))
    ]


def test_run_all(page):
    assert not page.problems()
    assert not page.errors
    for name in page.widgets:
        page.until(lambda name=name: page.picture(name), f"the widget of {name} has a picture")


def test_each_control_by_mouse(page):
    assert not deaf(page, page.by_mouse, skip=KEYS_ONLY)
    assert not page.errors


def test_each_control_by_keys(page):
    assert not deaf(page, page.by_keys)
    assert page.count() == len(page.ids), "JupyterLab took a key for a command of its own"
    assert not page.errors


def test_a_bet_is_placed_and_settled(page):
    bets = [name for name in page.ids if name.startswith("bet-")]
    assert len(bets) >= 2
    for name in bets:
        page.cell(name).locator(".widget-toggle-button").first.click()
        page.cell(name).locator(".widget-toggle-button.mod-active").wait_for()
    assert not page.errors


def test_widgets_twice_in_a_row(page):
    for name in page.widgets:
        before = [kind for kind, _ in page.controls(name)]
        for _ in range(2):
            page.run(name)
            page.until(lambda name=name: page.controls(name), "the widget is there again")
        assert [kind for kind, _ in page.controls(name)] == before, "one widget, not two"
    assert not deaf(page, page.by_keys, skip=("upload",))
    assert not page.problems() and not page.errors


def test_widgets_out_of_order(page):
    """After a restart, right after the setup cell: each works, or Python names what is missing."""
    page.restart_kernel()
    page.run("setup")
    for name in page.widgets:
        page.run(name)
    others = [problem for problem in page.problems() if not problem.strip("-\n ").startswith("NameError")]
    assert not others
    assert not page.errors

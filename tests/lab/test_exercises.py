"""The notebooks' exercises: unsolved, solved, and with each typical mistake."""

from __future__ import annotations

from importlib import import_module

import pytest
from lab_helpers import NOTEBOOKS, cells, exercises, head, judge, own_package

EXERCISES = [(name, title) for name in NOTEBOOKS for title in exercises(name)]
MISTAKES = {
    name: import_module(f"mistakes.{own_package(name).__name__.rpartition('.')[2]}").MISTAKES for name in NOTEBOOKS
}
OPEN = {(name, cell.id[6:]) for name in NOTEBOOKS for cell in cells(name) if cell.id.startswith("build-")}


def test_every_exercise_has_its_typical_mistakes():
    closed = set(EXERCISES) - OPEN
    assert closed <= {(name, title) for name, titles in MISTAKES.items() for title in titles} <= set(EXERCISES)
    assert all(len(MISTAKES[name][title]) >= 3 for name, title in closed)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_has_an_open_build(name):
    assert any(which == name for which, _ in OPEN)


@pytest.mark.parametrize("name, title", EXERCISES)
def test_an_exercise_is_unsolved_and_its_solution_is_right(name, title, model):
    unsolved = judge(name, title, None, model)
    assert unsolved.status == "not tried" and (unsolved.answer is not None or (name, title) in OPEN)
    verdict = judge(name, title, exercises(name)[title][1], model)
    assert verdict.status == "right", verdict


@pytest.mark.parametrize(
    "name, title, body, hint",
    [(name, title, *answer) for name, titles in MISTAKES.items() for title in titles for answer in titles[title]],
)
def test_a_typical_mistake_gets_its_hint(name, title, body, hint, model):
    whole = body if body.startswith(("def ", "class ")) else f"{head(name, title)}\n    {body}\n"
    verdict = judge(name, title, whole, model)
    assert verdict.status == "wrong" and hint in verdict.message, verdict

"""A course of one small notebook, whose checks need neither torch nor a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ldm_course.classroom.course import Notebook, course_notebooks

SETUP = """
from types import SimpleNamespace as Verdicts

def compare(yours, right):
    try:
        answers = [yours(x) for x in (0, 1, 5)]
    except Exception as error:
        return Verdicts(status="wrong", message=f"It raised {type(error).__name__}: {error}")
    if ... in answers:
        return Verdicts(status="not tried", message="Replace the dots.")
    if answers == [right(x) for x in (0, 1, 5)]:
        return Verdicts(status="right", message="It is right.")
    hint = "That is the square." if answers == [0, 1, 25] else "The values are off."
    return Verdicts(status="wrong", message=hint)

FACTOR, lab = 2, None
nb = Verdicts(double=lambda yours: compare(yours, lambda x: 2 * x))
nb.next = lambda yours: compare(yours, lambda x: 2 * x + 1)
"""
BLANK = "@lab.exercise(nb.{check})\ndef {name}(x):\n    return ...  # your code\n\n\nprint({name}(1))"
FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n</details>"
CELLS = [
    ("title", "markdown", "# 01 · A small one"),
    ("setup", "code", SETUP),
    ("exercise-double", "code", BLANK.format(check="double", name="double")),
    ("solution-double", "markdown", FOLDED.format("def double(x):\n    return 2 * x")),
    ("between", "code", "import math\n\none = math.floor(1.5)\nprint('this must not run')\n1 / 0"),
    ("exercise-next", "code", BLANK.format(check="next", name="after_double")),
    ("solution-next", "markdown", FOLDED.format("def after_double(x):\n    return double(x) + one")),
]


@pytest.fixture
def course(tmp_path: Path) -> list[Notebook]:
    cells = [{"id": name, "cell_type": kind, "metadata": {}, "source": source} for name, kind, source in CELLS]
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / "01_small.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}))
    return course_notebooks(folder)

"""Exercises: blanks that the learner fills in where an idea is introduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from IPython.display import display

from ldm_course.lab.shared.verdict import MARKS, NOT_TRIED, RIGHT, WRONG, Verdict

VERDICTS: dict[str, Verdict] = {}  # name of the function or class -> what its check found last


def exercise(check: Callable[..., Verdict], *args: Any) -> Callable[[Any], Any]:
    """Decorate a function or class with `@lab.exercise(check)` to check it as soon as it is defined.

    The verdict is shown below the cell. The name is then bound to the learner's part if it is right. If it is not, it
    is bound to the right answer, so that the cells below run all the same.

    Args:
        check: called with the part, and with `args` after it.
    """

    def go_on_with(yours: Any) -> Any:
        verdict = check(yours, *args)
        VERDICTS[yours.__name__] = verdict
        if verdict.status == RIGHT or verdict.answer is None:
            display(verdict)
            return yours
        display(replace(verdict, message=f"{verdict.message} Until then the cells below use the package's."))
        return verdict.answer

    return go_on_with


def summary() -> None:
    """Print every exercise that this notebook has checked so far, and whether it is right."""
    for name, verdict in VERDICTS.items():
        print(f"{MARKS[verdict.status]:18} {name}")
    count = [sum(verdict.status == status for verdict in VERDICTS.values()) for status in (RIGHT, WRONG, NOT_TRIED)]
    print("{} right, {} not yet right, {} not tried".format(*count))

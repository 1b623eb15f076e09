"""`@lab.exercise`: the learner's part if it is right, the package's if not. `lab.progress` and `lab.Bet`."""

from __future__ import annotations

import pytest

from ldm_course.errors import InputError
from ldm_course.lab.shared import exercises, widgets
from ldm_course.lab.shared.verdict import NOT_TRIED, RIGHT, WRONG, Verdict, compare


def check(yours, factor: int = 2) -> Verdict:
    return compare(yours, lambda x: factor * x, [(1,), (2,)], [(lambda x: x + factor, "You added.")])


@pytest.fixture(autouse=True)
def shown(monkeypatch) -> list[Verdict]:
    found: list[Verdict] = []
    monkeypatch.setattr(exercises, "display", found.append)
    monkeypatch.setattr(exercises, "VERDICTS", {})
    return found


def test_a_right_part_stays(shown):
    def twice(x):
        return x + x

    assert exercises.exercise(check)(twice) is twice
    assert [verdict.status for verdict in shown] == [RIGHT]


@pytest.mark.parametrize("yours, status", [(lambda x: ..., NOT_TRIED), (lambda x: x + 3, WRONG)])
def test_the_right_answer_stands_in_for_any_other(shown, yours, status):
    assert exercises.exercise(check, 3)(yours)(5) == 15
    assert shown[0].status == status and "the cells below use the package's" in shown[0].message


@pytest.mark.parametrize("body", ["x + ...", "[...][0]", "(...).relu()", "-(...)"])
def test_dots_that_are_left_are_no_error(body):
    assert check(eval(f"lambda x: {body}")).status == NOT_TRIED


def test_an_open_build_has_no_answer_to_stand_in(shown):
    def build(x): ...

    assert exercises.exercise(lambda yours: Verdict(NOT_TRIED, "Try."))(build) is build
    assert shown[0].message == "Try."


def test_a_further_check_runs_only_after_a_right_one():
    first = check(lambda x: 2 * x)
    assert first.then(lambda: Verdict(WRONG, "Not there.")).answer is first.answer
    wrong = check(lambda x: x)
    assert wrong.then(lambda: pytest.fail("must not run")) is wrong


def test_the_summary_lists_what_was_checked(shown, capsys):
    exercises.exercise(check)(lambda x: 2 * x)
    exercises.summary()
    assert capsys.readouterr().out == "✓ Right.           <lambda>\n1 right, 0 not yet right, 0 not tried\n"


def test_a_bet_is_held_against_the_outcome(monkeypatch, capsys):
    monkeypatch.setattr(widgets, "display", lambda *args, **kwargs: None)
    bet = widgets.Bet("Heads or tails?", ("heads", "tails"))
    bet.settle("heads")
    bet.buttons.value = "heads"
    bet.settle("heads")
    bet.settle("tails")
    assert [line.split(". ")[-1] for line in capsys.readouterr().out.splitlines()] == [
        "(You placed no bet.)", "Won!", "Lost: now find out why."
    ]  # fmt: skip
    with pytest.raises(InputError, match="outcome"):
        bet.settle("the rim")

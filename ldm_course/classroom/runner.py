"""The process that runs one student's answers: `python -m ldm_course.classroom.runner`, started by `grade`.

It reads a line of JSON and then the notebook from its standard input, and writes a line of JSON for each thing that
happens. It works out what to run, runs the course's own setup cell, shuts itself in, and only then runs the student's
code. The check is the course's. It runs in the same process as the student's code, so code that looks for it can
deceive it: see docs/grading.md.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ldm_course.classroom.answers import Answer, Submission
from ldm_course.classroom.course import Exercise, Notebook, course_notebooks, plain_python
from ldm_course.errors import brief

Say = Callable[..., None]


def main() -> None:
    request, _, text = sys.stdin.buffer.read().partition(b"\n")
    asked = json.loads(request)
    channel, token, nothing = os.dup(1), asked["token"], os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)  # what the student's code prints goes nowhere

    def say(**what: Any) -> None:
        os.write(channel, f"\n{json.dumps({'token': token, **what})}\n".encode())  # on a line of its own

    try:
        _work(asked, text, say)
    except Exception as error:  # of the grader itself, or of the machine
        say(broken=f"the grader failed: {brief(error)}")
    say(done=True)


def _work(asked: dict[str, Any], text: bytes, say: Say) -> None:
    course = course_notebooks(Path(asked["course"]))
    try:
        submission = Submission(text.decode("utf-8"), course)
    except UnicodeDecodeError:
        return say(broken="not a notebook, it is no text")
    except ValueError as error:
        return say(broken=str(error))
    notebook = submission.notebook
    exercises = notebook.exercises()
    say(notebook=notebook.short, exercises=[each.title for each in exercises])
    answers = {each.title: submission.answer(each) for each in exercises}
    to_run = []
    for each in exercises:
        answer = answers[each.title]
        if each.title in asked["done"]:
            continue
        if answer.problem:
            say(exercise=each.title, verdict="broken", message=answer.problem)
        elif not answer.tried:
            say(exercise=each.title, verdict="not tried", message="")
        else:
            to_run.append(each)
    if to_run:
        _run(notebook, to_run, answers, asked["megabytes"], say)


def _run(notebook: Notebook, exercises: list[Exercise], answers: dict[str, Answer], megabytes: int, say: Say) -> None:
    from ldm_course.classroom.guard import most_megabytes, shut

    setup = next(cell for cell in notebook.cells if cell.kind == "code")
    given: dict[str, Any] = {"__name__": "__main__", "display": lambda *args, **kwargs: None}
    exec(compile(plain_python(setup.source), "setup", "exec"), given)
    say(filtered=shut(megabytes))
    for exercise in exercises:
        answer = answers[exercise.title]
        say(begin=exercise.title, look=answer.look)
        start = time.process_time()
        before = _parts()
        verdict, message = _verdict(exercise, answer, given)
        after = _parts()
        changed = [name for name, part in before.items() if after.get(name) is not part]
        seconds = round(time.process_time() - start, 1)
        what = {"message": message[:1000], "seconds": seconds, "changed": changed[:5], "megabytes": most_megabytes()}
        say(exercise=exercise.title, verdict=verdict, **what)


def _verdict(exercise: Exercise, answer: Answer, given: dict[str, Any]) -> tuple[str, str]:
    namespace = dict(given)
    try:
        exec(compile(ast.Module(answer.code, []), f"the cell of {answer.name}", "exec"), namespace)
        yours = namespace[answer.name]
    except BaseException as error:  # whatever the student's code raises
        return "wrong", _raised(error)
    check, *arguments = (eval(argument, dict(given)) for argument in exercise.check)
    try:
        found = check(yours, *arguments)
    except MemoryError:
        return "stopped", "it took too much memory"
    except BaseException as error:  # SystemExit, say, which no check catches
        return "wrong", _raised(error)
    if found.status == "wrong" and ("MemoryError" in found.message or "allocate memory" in found.message):
        return "stopped", "it took too much memory"
    return found.status, found.message if found.status == "wrong" else ""


def _raised(error: BaseException) -> str:
    return f"It raised {type(error).__name__}: {error}"


def _parts() -> dict[str, Any]:
    """The functions and classes that a check relies on, by name. None of them may change."""
    owners: dict[str, Any] = {
        name: module
        for name, module in list(sys.modules.items())
        if name in ("builtins", "numpy", "torch", "torch.nn.functional") or name.startswith("ldm_course.")
    }
    owners |= {"torch.Tensor": owners["torch"].Tensor} if "torch" in owners else {}
    return {
        f"{name}.{part}": value
        for name, owner in owners.items()
        for part, value in list(vars(owner).items())
        if callable(value)
    }


if __name__ == "__main__":
    main()

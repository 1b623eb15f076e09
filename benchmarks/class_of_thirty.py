"""Thirty students hand in notebook 04 and others, right, wrong, broken, endless and hostile: is every row right?

    python benchmarks/class_of_thirty.py [--jobs 2] [--seconds 60] [--keep FOLDER]

Makes the thirty notebooks from the course's own, its solutions and the typical mistakes of tests/lab/mistakes, grades
them in one command (`ldm-course grade`), which prints time and memory, and compares the table with what each student
did. Exits with 1 if one cell of the table is not as it should be.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / "classroom"), str(ROOT / "tests" / "lab")]

from mistakes import nb04_txt2img, nb05_img2img, nb06_inpainting  # noqa: E402
from students import HOSTILE, handed_in, save, solutions  # noqa: E402

from ldm_course.classroom.course import Notebook, course_notebooks  # noqa: E402

Expected = dict[str, tuple[str, str]]  # exercise -> verdict, and words that the table must hold
ATTACKED = "guide"  # the exercise of notebook 04 in which hostile students attack


def the_class(course: dict[str, Notebook], folder: Path) -> dict[str, tuple[str, Expected]]:
    """Write the notebooks. Returns for each file the number of its notebook and what its row must say."""
    expected: dict[str, tuple[str, Expected]] = {}

    def add(number: str, answers: dict[str, str], says: Expected, **options: bool) -> None:
        name = f"student-{len(expected) + 1:02}.ipynb"
        save(handed_in(course[number], answers, **options), folder / name)
        blank = {exercise.title: ("not tried", "") for exercise in course[number].exercises()}
        expected[name] = number, blank | says

    right = {number: solutions(notebook) for number, notebook in course.items()}
    for number in ("04", "04", "05", "06"):  # everything right
        add(number, right[number], dict.fromkeys(right[number], ("right", "")))
    add("04", right["04"], dict.fromkeys(right["04"], ("right", "")), with_ids=False)
    add("04", {}, {})
    for titles in (("timesteps", "guide"), ("timesteps", "guide", "loop")):  # the first ones right
        add("04", {title: right["04"][title] for title in titles}, dict.fromkeys(titles, ("right", "")))
    for number, module in (("04", nb04_txt2img), ("04", nb04_txt2img), ("05", nb05_img2img), ("06", nb06_inpainting)):
        nth = 1 + len(expected) % 2  # of the typical mistakes; the first one of 05 img2img passes its check
        wrong = {title: mistakes[min(nth, len(mistakes) - 1)] for title, mistakes in module.MISTAKES.items()}
        says = {title: ("wrong", words) for title, (_, words) in wrong.items()}
        add(number, {title: body for title, (body, _) in wrong.items()}, says)
    for body, verdict, words in HOSTILE.values():
        answers = {"timesteps": right["04"]["timesteps"], ATTACKED: body}
        add("04", answers, {"timesteps": ("right", ""), ATTACKED: (verdict, words)})
    broken = {"student-29.ipynb": "{", "student-30.ipynb": json.dumps({"cells": []})}
    for name, text in broken.items():
        (folder / name).write_text(text)
        expected[name] = "", {}
    return expected


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp())
    course = {notebook.short: notebook for notebook in course_notebooks(ROOT / "notebooks")}
    expected = the_class(course, folder / "in")
    command = [sys.executable, "-m", "ldm_course.cli", "grade", str(folder / "in"), "-o", str(folder / "grades.csv")]
    subprocess.run([*command, "-j", str(options.jobs), "--seconds", str(options.seconds)], check=True)

    faults = []
    rows = {row["file"]: row for row in csv.DictReader((folder / "grades.csv").open(encoding="utf-8"))}
    for name, (number, exercises) in expected.items():
        row = rows.pop(name)
        if row["notebook"] != number or bool(row["problem"]) != (not number):
            faults.append(f"{name}: {row}")
        for title, (verdict, words) in exercises.items():
            cell = row[f"{number} {title}"]
            if not cell.startswith(verdict) or words not in cell:
                faults.append(f"{name}, {title}: {cell!r} where {verdict!r} with {words!r} is right")
    cells = sum(max(len(exercises), 1) for _, exercises in expected.values())
    print(f"{cells - len(faults)} of {cells} cells of the table are right", *faults, *rows, sep="\n")
    sys.exit(bool(faults or rows))


if __name__ == "__main__":
    main()

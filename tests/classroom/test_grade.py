"""Grading a folder: a class whose answers are right, wrong, broken, endless and hostile."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time

import pytest
from students import FORGED, HOSTILE, handed_in, save, solutions

from ldm_course import cli
from ldm_course.classroom import grade as grading
from ldm_course.classroom import guard
from ldm_course.classroom.grade import Limits, Row, frequent, grade, submissions, table
from ldm_course.errors import InputError

QUICK = Limits(seconds=4, megabytes=500)
filtered = pytest.mark.skipif(not guard.can_shut(), reason="no system call filter here")


def graded(course, folder, answers):
    """The rows for one notebook of each student: name -> what is in the cells of the exercises."""
    for name, given in answers.items():
        save(handed_in(course[0], given), folder / f"{name}.ipynb")
    return {row.file.removesuffix(".ipynb"): row for row in grade(folder, course, QUICK, jobs=2)}


def test_right_wrong_and_not_tried(course, tmp_path):
    rows = graded(
        course,
        tmp_path / "in",
        {
            "ann": solutions(course[0]),
            "bob": {"double": "return x * x", "next": "return x"},
            "cem": {},
            "dee": {"next": "return double(x) + one"},
        },
    )
    assert {name: (row.notebook, row.right) for name, row in rows.items()} == {
        "ann": ("01", 2), "bob": ("01", 0), "cem": ("01", 0), "dee": ("01", 1),
    }  # fmt: skip
    assert rows["bob"].words == {"double": "That is the square.", "next": "The values are off."}
    assert rows["cem"].verdicts == dict.fromkeys(["double", "next"], "not tried")
    assert rows["dee"].verdicts == {"double": "not tried", "next": "right"}
    assert frequent(list(rows.values()))[0].startswith("1 x 01 ")


@filtered
@pytest.mark.parametrize("what", [what for what in HOSTILE if "torch" not in what])  # nothing here imports torch
def test_a_hostile_answer_costs_its_own_verdict_only(course, tmp_path, what):
    body, verdict, words = HOSTILE[what]
    row = graded(course, tmp_path / "in", {"eve": {"double": body, "next": "return double(x) + one"}})["eve"]
    assert (row.verdicts["double"], row.verdicts["next"]) == (verdict, "right"), row
    assert words in row.words["double"] and len(row.words["double"]) <= 500


FORGERIES = {
    "its own check": "@lab.exercise(lambda yours: None)\ndef double(x):\n    return 0",
    "another lab": "class lab:\n    exercise = id\n\n\n@lab.exercise(nb.double)\ndef double(x):\n    return 0",
    "another nb": "nb = None\n\n\n@lab.exercise(nb.double)\ndef double(x):\n    return 0",
    "a printed verdict": "@lab.exercise(nb.double)\ndef double(x):\n    print('✓ Right.')\n    return 0",
    "a line for the grader": f"""
@lab.exercise(nb.double)
def double(x):
    import os
    for channel in range(3, 20):
        try: os.write(channel, b{FORGED % "double"!r})
        except OSError: pass
    return 0
""",
}


@filtered
@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_verdict_is_not_believed(course, tmp_path, what):
    notebook = handed_in(course[0], {})
    notebook["cells"][2]["source"] = FORGERIES[what]
    save(notebook, tmp_path / "in" / "eve.ipynb")
    (row,) = grade(tmp_path / "in", course, QUICK)
    assert row.verdicts["double"] == "wrong", row


THIEF = """
@lab.exercise(nb.double)
def double(x):
    import json, os, sys
    frame = sys._getframe()
    while "channel" not in frame.f_locals:
        frame = frame.f_back
    forged = {"token": frame.f_locals["token"], "exercise": "double", "verdict": "right", "message": ""}
    os.write(frame.f_locals["channel"], (json.dumps(forged) + chr(10)).encode())
    os._exit(0)
"""


def test_one_who_forges_with_the_grader_s_own_token_is_marked(course, tmp_path):
    notebook = handed_in(course[0], {})
    notebook["cells"][2]["source"] = THIEF
    save(notebook, tmp_path / "in" / "eve.ipynb")
    (row,) = grade(tmp_path / "in", course, QUICK)
    assert row.right == 0 and row.verdicts["double"] in ("look", "stopped"), row
    assert row.verdicts["double"] != "look" or "uses ._getframe" in row.words["double"]


def test_what_changes_the_check_is_marked(course, tmp_path):
    equal_to_all = "class Any(int):\n        __eq__ = lambda a, b: True\n    return Any()"
    body = "import builtins; builtins.abs = None; return 2 * x"
    rows = graded(course, tmp_path / "in", {"eve": {"double": body}, "mallory": {"double": equal_to_all}})
    assert rows["eve"].verdicts["double"] == "look" and "changes builtins.abs" in rows["eve"].words["double"]
    assert "imports builtins" in rows["eve"].words["double"]


def test_every_file_has_its_row(course, tmp_path):
    folder = tmp_path / "in"
    save(handed_in(course[0], solutions(course[0])), folder / "a class" / "zoë.ipynb")
    save(handed_in(course[0], solutions(course[0])), folder / ".ipynb_checkpoints" / "zoë.ipynb")
    (folder / "=cmd.ipynb").write_text("no notebook")
    (folder / "binary.ipynb").write_bytes(bytes(range(256)))
    (folder / "empty.ipynb").touch()
    (folder / "folder.ipynb").mkdir()
    (folder / "other.ipynb").write_text('{"cells": [{"cell_type": "markdown", "source": "# Hello"}]}')
    os.mkfifo(folder / "pipe.ipynb") if hasattr(os, "mkfifo") else None
    with (folder / "large.ipynb").open("wb") as file:
        file.truncate(grading.LARGEST + 1)
    rows = {row.file: row for row in grade(folder, course, QUICK, jobs=3)}
    assert rows.pop("a class/zoë.ipynb").right == 2
    assert all(row.problem and not row.right for row in rows.values())
    assert len(rows) == 6 + hasattr(os, "mkfifo")
    assert "larger than 30 MB" in rows["large.ipynb"].problem and "no text" in rows["binary.ipynb"].problem
    written = list(csv.reader(io.StringIO(table(list(rows.values())))))
    assert "'=cmd.ipynb" in [line[0] for line in written] and all(len(line) == 5 for line in written)


def test_the_table_has_a_column_for_each_exercise():
    rows = [
        Row("a.ipynb", "04", ["guide", "loop"], {"guide": "right", "loop": "wrong"}, {"guide": "", "loop": "A, b"}),
        Row("b.ipynb", "05", ["start"], {"start": "not tried"}, {"start": ""}),
        Row("c.ipynb", problem="not a notebook"),
    ]
    assert list(csv.reader(io.StringIO(table(rows)))) == [
        ["file", "notebook", "right", "of", "problem", "04 guide", "04 loop", "05 start"],
        ["a.ipynb", "04", "1", "2", "", "right", "wrong: A, b", ""],
        ["b.ipynb", "05", "0", "1", "", "", "", "not tried"],
        ["c.ipynb", "", "0", "0", "not a notebook", "", "", ""],
    ]


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        submissions(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no notebooks in"):
        submissions(tmp_path)


def test_the_command(course, tmp_path, capsys):
    save(handed_in(course[0], solutions(course[0])), tmp_path / "in" / "ann.ipynb")
    arguments = [
        "grade",
        str(tmp_path / "in"),
        "-o",
        str(tmp_path / "out.csv"),
        "--notebooks",
        str(tmp_path / "course"),
    ]
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert done.value.code == 0 and "2 of 2 exercises right" in out and "Students' code runs" in err
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "ann.ipynb,01,2,2,,right,right"


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as on Unix")
def test_ctrl_c_ends_it_at_once(course, tmp_path):
    for i in range(3):
        save(handed_in(course[0], {"double": "while True: pass"}), tmp_path / "in" / f"{i}.ipynb")
    options = ["-o", str(tmp_path / "out.csv"), "--notebooks", str(tmp_path / "course"), "--jobs", "2"]
    command = [sys.executable, "-m", "ldm_course.cli", "grade", str(tmp_path / "in"), *options]
    how = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    how["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in background
    with subprocess.Popen(command, **how) as process:
        assert "Students' code runs" in process.stderr.readline()
        time.sleep(2)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and "stopped" in process.stderr.read()
        assert time.monotonic() - start < 15, "an exercise may take two minutes"

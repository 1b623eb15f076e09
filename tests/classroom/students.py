"""Students' notebooks, made from a notebook of the course: right, wrong, broken, endless and hostile."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from ldm_course.classroom.course import Exercise, Notebook

FORGED = '{"exercise": "%s", "verdict": "right", "message": "", "token": ""}\n'

# Bodies that do not answer but attack; with the verdict, and words that the table must hold.
HOSTILE: dict[str, tuple[str, str, str]] = {
    "endless": ("while True: pass", "stopped", "took more than"),
    "asleep": ("import time; time.sleep(1e6)", "stopped", "took more than"),
    "hungry": ("return bytearray(10**11)", "stopped", "too much memory"),
    "hungry in torch": ("import torch; return torch.ones(10**11)", "stopped", "too much memory"),
    "leaves": ("import os; os._exit(0)", "stopped", "ended the program"),
    "exits": ("raise SystemExit", "wrong", "raised SystemExit"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "stopped", "ended the program"),
    "kills the grader": ("import os; os.kill(os.getppid(), 9)", "wrong", "raised PermissionError"),
    "forks": ("import os\n    for _ in range(40): os.fork()", "wrong", "raised PermissionError"),
    "starts programs": ("import subprocess; subprocess.run(['true'])", "wrong", "raised PermissionError"),
    "connects": ("import socket; socket.create_connection(('127.0.0.1', 1))", "wrong", "raised PermissionError"),
    "fills the disk": ("open('full', 'wb').write(bytes(10**9))", "wrong", "raised"),
    "deletes": ("import os; os.unlink(__import__('ldm_course').__file__)", "wrong", "raised"),
    "recurses": ("f = lambda: f(); return f()", "wrong", "raised RecursionError"),
    "shouts": ("raise ValueError('=A1' * 10**6)", "wrong", "raised ValueError"),
    "prints": ("print('✓ Right.' * 10**6); return 0", "wrong", ""),
}


def definition(source: str) -> ast.FunctionDef | ast.ClassDef:
    """The function or class of an exercise's cell."""
    (node,) = [node for node in ast.parse(source).body if getattr(node, "decorator_list", None)]
    assert isinstance(node, (ast.FunctionDef, ast.ClassDef))
    return node


def whole(exercise: Exercise, answer: str) -> str:
    """An exercise's cell with an answer in it: the body of its function, or a whole function or class."""
    node = definition(exercise.blank)
    decorator = ast.unparse(node.decorator_list[0])
    if not answer.lstrip().startswith(("def ", "class ")):
        node.decorator_list, node.body = [], [ast.Pass()]
        answer = ast.unparse(node).removesuffix("\n    pass") + f"\n    {answer}\n"
    return f"@{decorator}\n{answer}"


def handed_in(notebook: Notebook, answers: dict[str, str], with_ids: bool = True) -> dict[str, Any]:
    """A copy of the notebook with answers in the cells of its exercises: title -> answer, as for `whole`."""
    copy = json.loads(notebook.path.read_text(encoding="utf-8"))
    exercises = {exercise.title: exercise for exercise in notebook.exercises()}
    for cell in copy["cells"]:
        title = cell["id"].partition("-")[2]
        if title in answers and not cell["id"].startswith("solution-"):
            cell["source"] = whole(exercises[title], answers[title])
        cell.pop("outputs", None)
        if not with_ids:
            del cell["id"]
    return copy


def solutions(notebook: Notebook) -> dict[str, str]:
    return {exercise.title: exercise.solution for exercise in notebook.exercises()}


def save(notebook: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(notebook), encoding="utf-8")

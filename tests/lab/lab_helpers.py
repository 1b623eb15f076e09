"""What the tests of notebooks and live widgets use: a notebook's cells, definitions and exercises."""

from __future__ import annotations

import ast
import asyncio
import itertools
import math
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import torch
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab.shared.verdict import Verdict
from ldm_course.model import LatentDiffusion

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("**/*.ipynb"))}
GRADIENT = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
EXERCISE = ("exercise-", "build-")  # what the names of their cells begin with; a build is an open one
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def cells(name: str, kind: str | None = None) -> list[Any]:
    found = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    return [cell for cell in found if kind is None or cell.cell_type == kind]


def own_package(name: str) -> ModuleType:
    """The package of helpers that the notebook imports as nb."""
    (own,) = re.findall(r"^from ldm_course\.lab import (\w+) as nb$", cells(name, "code")[0].source, re.M)
    return import_module(f"ldm_course.lab.{own}")


def definitions(name: str, **given: Any) -> dict[str, Any]:
    """Everything that the notebook imports and defines outside its exercises, each once, without the rest of it."""
    namespace, defined = dict(given), set()
    for cell in cells(name, "code"):
        if not cell.id.startswith(EXERCISE):
            statements = ast.parse(TransformerManager().transform_cell(cell.source)).body
            body = [statement for statement in statements if isinstance(statement, DEFINITIONS)]
            names = {statement.name for statement in body if isinstance(statement, DEFINITIONS[2:])}
            assert not names & defined, f"{names & defined} is defined twice"
            defined |= names
            exec(compile(ast.Module(body, []), cell.id, "exec"), namespace)
    return namespace


def exercises(name: str) -> dict[str, tuple[str, str]]:
    """Exercise -> the source of its cell, and the solution that is folded below it."""
    found, all_cells = {}, cells(name)
    for cell, below in zip(all_cells, all_cells[1:]):
        if cell.cell_type == "code" and cell.id.startswith(EXERCISE):
            title = cell.id.partition("-")[2]
            assert below.id == f"solution-{title}" and below.source.startswith("<details>"), "folded, right below"
            (solution,) = re.findall(r"```python\n(.*?)```", below.source.split("Solution")[-1], re.DOTALL)
            found[title] = (cell.source, solution)
    return found


def judge(name: str, title: str, answer: str | None, model: LatentDiffusion) -> Verdict:
    """What the exercise's check says of this source; of the cell as it is without one.

    The source sees the course's packages, the model, and the right answers to the exercises before it.
    """
    found = exercises(name)
    namespace: dict[str, Any] = {
        "torch": torch, "nn": torch.nn, "F": torch.nn.functional, "math": math, "np": np,
        "ldm": ldm, "lab": lab, "nb": own_package(name), "model": model, "small": model,
    }  # fmt: skip
    for before in itertools.takewhile(lambda other: other != title, found):
        exec(found[before][1], namespace)
    (blank,) = [node for node in ast.parse(found[title][0]).body if getattr(node, "decorator_list", None)]
    assert isinstance(blank, DEFINITIONS[2:]), "an exercise is a function or a class below @lab.exercise(...)"
    (decorator,) = blank.decorator_list
    assert isinstance(decorator, ast.Call)
    blank.decorator_list = []
    exec(ast.unparse(blank) if answer is None else answer, namespace)
    check, *others = [eval(ast.unparse(argument), namespace) for argument in decorator.args]
    return check(namespace[blank.name], *others)


def head(name: str, title: str) -> str:
    """The first line of an exercise's function, to put another body below."""
    (blank,) = [node for node in ast.parse(exercises(name)[title][0]).body if getattr(node, "decorator_list", None)]
    assert isinstance(blank, ast.FunctionDef), "for a class, write the whole of the mistaken class"
    blank.decorator_list, blank.body = [], [ast.Pass()]
    return ast.unparse(blank).removesuffix("\n    pass")


def solution(name: str, title: str) -> Callable[..., Any]:
    """The function that solves the exercise."""
    source = exercises(name)[title][1]
    namespace: dict[str, Any] = {"torch": torch, "math": math}
    exec(source, namespace)
    return namespace[re.findall(r"^def (\w+)", source, re.MULTILINE)[0]]


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Let the event loop run until the condition holds. Raises TimeoutError if it does not within this time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)

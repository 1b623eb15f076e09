"""What the tests of notebooks and live widgets use: a notebook's cells, definitions and exercises."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import torch
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab.shared.verdict import Verdict
from ldm_course.model import LatentDiffusion

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
GRADIENT = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def cells(name: str, kind: str | None = None) -> list[Any]:
    found = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    return [cell for cell in found if kind is None or cell.cell_type == kind]


def own_package(name: str) -> ModuleType:
    """The package of helpers that the notebook imports as nb."""
    (own,) = re.findall(r"^from ldm_course\.lab import (nb\d\d_\w+) as nb$", cells(name, "code")[0].source, re.M)
    return import_module(f"ldm_course.lab.{own}")


def definitions(name: str, **given: Any) -> dict[str, Any]:
    """Everything that the notebook imports and defines outside its exercises, each once, without the rest of it."""
    namespace, defined = dict(given), set()
    for cell in cells(name, "code"):
        if not cell.id.startswith("exercise-"):
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
        if cell.id.startswith("exercise-") and cell.cell_type == "code":
            title = cell.id.removeprefix("exercise-")
            assert below.id == f"solution-{title}" and below.source.startswith("<details>"), "folded, right below"
            (solution,) = re.findall(r"```python\n(.*?)```", below.source, re.DOTALL)
            found[title] = (cell.source, solution)
    return found


def judge(name: str, title: str, answer: str | None, model: LatentDiffusion) -> Verdict:
    """What the exercise's check, its cell's last line, says of this source; of the cell as it is without one."""
    *unsolved, check = exercises(name)[title][0].rstrip().splitlines()
    namespace = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "ldm": ldm, "lab": lab, "model": model}
    namespace["nb"] = own_package(name)
    exec("\n".join(unsolved) if answer is None else answer, namespace)
    return eval(check, namespace)


def solution(name: str, title: str) -> Callable[..., Any]:
    """The function that solves the exercise."""
    source = exercises(name)[title][1]
    namespace: dict[str, Any] = {"torch": torch}
    exec(source, namespace)
    return namespace[re.findall(r"^def (\w+)", source, re.MULTILINE)[0]]


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Let the event loop run until the condition holds. Raises TimeoutError if it does not within this time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0)

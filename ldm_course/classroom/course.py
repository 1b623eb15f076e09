"""The course's notebooks as a teacher's tools read them: cells, exercises and their solutions."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm_course.errors import InputError

EXERCISE = ("exercise-", "build-")  # what the names of their cells begin with; a build is an open one


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook. `id` is "" in notebooks that have none."""

    id: str
    kind: str  # "code" or "markdown"
    source: str
    outputs: list[dict[str, Any]] = field(default_factory=list, repr=False)


def cells_of(text: str) -> list[Cell]:
    """The cells of a notebook file. Raises ValueError, in words, for a file that is none."""
    try:
        found = json.loads(text)["cells"]
        return [_cell(cell) for cell in found if cell["cell_type"] in ("code", "markdown")]
    except json.JSONDecodeError as error:
        raise ValueError(f"not a notebook, line {error.lineno} is no JSON") from None
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("not a notebook, it has no list of cells") from None


def _cell(cell: dict[str, Any]) -> Cell:
    source = cell["source"]
    name = cell.get("id") or cell.get("metadata", {}).get("id") or ""  # Colab keeps names in the metadata
    return Cell(str(name), cell["cell_type"], "".join(source), cell.get("outputs", []))


@dataclass(frozen=True)
class Exercise:
    """An exercise of a notebook.

    name: of the function or class. title: the cell's name without "exercise-". check: the decorator's first argument
    and those behind it, as source. solution: the source of the folded solution. cell: its place in the notebook.
    """

    name: str
    title: str
    check: list[str]
    blank: str
    solution: str
    cell: int


def check_of(node: ast.stmt) -> list[str] | None:
    """The arguments of a definition's @lab.exercise(...), as source; None where there is none."""
    for decorator in getattr(node, "decorator_list", ()):
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "lab.exercise" and decorator.args:
            return [ast.unparse(argument) for argument in decorator.args]
    return None


def plain_python(source: str) -> str:
    """A cell's source without IPython's magics and shell commands."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


@dataclass(frozen=True)
class Notebook:
    """One of the course's own notebooks."""

    path: Path
    cells: list[Cell]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def short(self) -> str:
        """ "04" of 04_txt2img, and the whole name where there is no number."""
        number = self.name.partition("_")[0]
        return number if number.isdigit() else self.name

    def cells_text(self) -> str:
        """All of its Markdown."""
        return "\n\n".join(cell.source for cell in self.cells if cell.kind == "markdown")

    def exercises(self) -> list[Exercise]:
        found = []
        for place, (cell, below) in enumerate(zip(self.cells, self.cells[1:])):
            if cell.kind == "code" and cell.id.startswith(EXERCISE):
                solution = re.findall(r"```python\n(.*?)```", below.source.split("Solution")[-1], re.DOTALL)
                for node in ast.parse(plain_python(cell.source)).body:
                    if (check := check_of(node)) and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                        title = cell.id.partition("-")[2]
                        found.append(Exercise(node.name, title, check, cell.source, solution[0], place))
        return found


def course_notebooks(folder: Path | None = None) -> list[Notebook]:
    """The course's notebooks with their solutions: those of `folder`, or of the clone in or above which we are."""
    here = Path.cwd()
    places = [folder] if folder else [here / "notebooks", here, Path(__file__).parents[2] / "notebooks"]
    for place in places:
        paths = [*sorted(place.glob("*.ipynb")), *sorted(place.glob("beyond/*.ipynb"))]
        if found := [notebook for notebook in map(_course_notebook, paths) if notebook is not None]:
            return found
    raise InputError("The course's own notebooks, with their solutions, are not here; name their folder.")


def _course_notebook(path: Path) -> Notebook | None:
    """None for a notebook that is not the course's, or has lost its solutions."""
    try:
        notebook = Notebook(path, cells_of(path.read_text(encoding="utf-8")))
        return notebook if notebook.exercises() else None
    except (OSError, ValueError, SyntaxError, IndexError):
        return None

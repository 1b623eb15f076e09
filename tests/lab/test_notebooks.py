"""The committed notebooks: their form, their outputs, their exercises. What each measures: test_nbNN.py."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab.shared.verdict import Verdict
from ldm_course.model import LatentDiffusion

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
WIDGET = "application/vnd.jupyter.widget-view+json"

every_notebook = pytest.mark.parametrize("name", sorted(NOTEBOOKS))


def cells(name: str, kind: str | None = None) -> list[Any]:
    found = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    return [cell for cell in found if kind is None or cell.cell_type == kind]


def python(cell) -> str:
    """A code cell's source as plain Python, its magics turned into calls."""
    return TransformerManager().transform_cell(cell.source)


def outputs(name: str) -> list[Any]:
    return [output for cell in cells(name, "code") for output in cell.outputs]


def run(source: str, namespace: dict[str, Any]) -> Any:
    """Execute code and return the value of its last line, as a cell does."""
    *body, last = ast.parse(source).body
    exec(compile(ast.Module(body, []), "<cell>", "exec"), namespace)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    exec(compile(ast.Module([last], []), "<cell>", "exec"), namespace)


# ---- form ------------------------------------------------------------------------------------------------------


@every_notebook
def test_the_file_is_valid_and_small(name):
    nbformat.validate(json.loads(NOTEBOOKS[name].read_text(encoding="utf-8")))
    assert NOTEBOOKS[name].stat().st_size < 3e6, "large pages are slow on GitHub"


@every_notebook
def test_it_was_run_once_from_top_to_bottom(name):
    counts = [cell.execution_count for cell in cells(name, "code")]
    assert counts == list(range(1, len(counts) + 1)), "run all cells of a fresh kernel, then save"


@every_notebook
def test_nothing_went_wrong(name):
    assert not [output.evalue for output in outputs(name) if output.output_type == "error"]
    assert not [output.text for output in outputs(name) if output.get("name") == "stderr"]


@every_notebook
def test_metadata_holds_no_widget_state_and_no_times(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}, "GitHub refuses pages with widget state"
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}, f"{cell.id}: {set(cell.metadata)}"


@every_notebook
def test_cells_are_short_and_named(name):
    long = {cell.id for cell in cells(name, "code") if len(cell.source.splitlines()) > 25}
    assert not long, f"over 25 lines: {long}"
    assert all(re.fullmatch(r"[a-z0-9-]+", cell.id) for cell in cells(name)), "cells are named, not numbered"


@every_notebook
def test_it_opens_with_title_and_badge(name):
    first = cells(name)[0]
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    target = f"{ADDRESS.replace('github.com', 'colab.research.google.com/github')}/blob/main/notebooks/{name}.ipynb"
    assert first.cell_type == "markdown" and first.source.startswith(f"# {name[:2]} ")
    assert re.findall(r"\[!\[(.+)\]\((.+)\)\]\((.+)\)", first.source) == [("Open in Colab", badge, target)]


@every_notebook
def test_one_cell_installs_on_colab_and_nothing_else(name):
    (setup,) = [cell for cell in cells(name, "code") if "google.colab" in cell.source]
    installs = [line for cell in cells(name, "code") for line in cell.source.splitlines() if "pip " in line]
    assert len(installs) == 1 and installs[0] in setup.source and setup.execution_count == 1
    assert installs[0].startswith("    %pip install --quiet --no-deps "), "what Colab has must stay as it is"
    assert 'MODEL = "small"' in setup.source


@every_notebook
def test_images_have_alternative_texts(name):
    for output in outputs(name):
        for kind in set(output.get("data", {})) & set(IMAGES):
            alt = output.metadata.get(kind, {}).get("alt", "")
            assert len(alt) > 20, f"an image without alternative text in {name}: use lab.plots.show"
        html = "".join(output.get("data", {}).get("text/html", ""))
        assert html.count("<img") == len(re.findall(r"<img[^>]*\salt=.", html))
    for cell in cells(name, "markdown"):
        assert all(alt.strip() for alt in re.findall(r"!\[(.*?)\]\(", cell.source)), cell.id


@every_notebook
def test_a_contact_sheet_follows_each_widget(name):
    code = cells(name, "code")
    for cell, below in zip(code, [*code[1:], None]):
        if any(WIDGET in output.get("data", {}) for output in cell.outputs):
            assert below is not None
            assert any(set(IMAGES) & set(output.get("data", {})) for output in below.outputs), cell.id


def own_package(name: str) -> ModuleType:
    """The package of helpers that the notebook imports as nb."""
    (own,) = re.findall(
        r"^from ldm_course\.lab import (nb\d\d_\w+) as nb$", cells(name, "code")[0].source, re.MULTILINE
    )
    return import_module(f"ldm_course.lab.{own}")


@every_notebook
def test_the_source_it_shows_is_the_package_s(name):
    shows = [cell for cell in cells(name, "code") if "show_source(" in cell.source]
    assert shows, "each notebook shows the package's own source"
    for cell in shows:
        shown = "".join(output.data["text/markdown"] for output in cell.outputs)
        for thing in re.search(r"show_source\((.*?)\)", cell.source, re.DOTALL)[1].split(","):
            if thing.strip():
                source = inspect.getsource(eval(thing.strip(), {"ldm": ldm, "lab": lab, "nb": own_package(name)}))
                assert source in shown, f"{thing.strip()} has changed since {name} was run"


# ---- exercises -------------------------------------------------------------------------------------------------


def exercises(name: str) -> dict[str, tuple[str, str]]:
    """Exercise -> the source of its cell below the import of the notebook's own package, and the folded solution."""
    found, following = {}, cells(name)[1:]
    own = f"from ldm_course.lab import {own_package(name).__name__.rpartition('.')[2]} as nb"
    for cell, below in zip(cells(name), following):
        if cell.id.startswith("exercise-") and cell.cell_type == "code":
            title = cell.id.removeprefix("exercise-")
            assert below.id == f"solution-{title}" and below.source.startswith("<details>"), "folded, right below"
            (solution,) = re.findall(r"```python\n(.*?)```", below.source, re.DOTALL)
            found[title] = (f"{own}\n{cell.source}", solution)
    return found


def names(model: LatentDiffusion) -> dict[str, Any]:
    """What a notebook has imported before its exercises."""
    return {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "ldm": ldm, "lab": lab, "model": model}


def judge(cell: str, answer: str, model: LatentDiffusion) -> Verdict:
    """Run the exercise's check, the cell's last line, on another definition of its function."""
    own, *_, check = cell.rstrip().splitlines()
    return run(f"{own}\n{answer}\n{check}", names(model))


def each_mistake(wrong: dict[str, list[tuple[str, str]]]) -> pytest.MarkDecorator:
    """Run a test with each wrong answer: its exercise, its function's body, and words of the hint it must get."""
    answers = [(title, *answer) for title, answers in wrong.items() for answer in answers]
    return pytest.mark.parametrize("title, body, hint", answers)


def assert_hint(name: str, title: str, body: str, hint: str, model: LatentDiffusion) -> None:
    """A wrong answer, given as its function's body, gets a hint with these words."""
    cell, _ = exercises(name)[title]
    head = cell.splitlines()[1]
    assert head.startswith(("def ", "class "))
    verdict = judge(cell, f"{head}\n    {body}\n", model)
    assert verdict.status == "wrong" and hint in verdict.message, verdict


ALL_EXERCISES = [(name, title) for name in sorted(NOTEBOOKS) for title in exercises(name)]


@every_notebook
def test_exercises_and_typical_mistakes_are_enough(name):
    wrong = import_module(f"test_nb{name[:2]}").WRONG
    assert len(exercises(name)) >= 3
    assert set(exercises(name)) == set(wrong)
    assert all(len(answers) >= 3 for answers in wrong.values())


@pytest.mark.parametrize("name, title", ALL_EXERCISES)
def test_an_exercise_is_unsolved_and_says_so(name, title, model):
    cell, _ = exercises(name)[title]
    assert run(cell, names(model)).status == "not tried"


@pytest.mark.parametrize("name, title", ALL_EXERCISES)
def test_the_folded_solution_is_right(name, title, model):
    cell, solution = exercises(name)[title]
    verdict = judge(cell, solution, model)
    assert verdict.status == "right", verdict


@every_notebook
def test_an_exercise_plugs_into_the_real_pipeline(name, model):
    verdicts = [judge(*exercises(name)[title], model) for title in exercises(name)]
    assert any("generated the same image" in verdict.message for verdict in verdicts)

"""The committed notebooks: their form and their outputs. Their exercises: test_exercises.py."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from typing import Any

import nbformat
import pytest
from lab_helpers import NOTEBOOKS, ROOT, cells, own_package

import ldm_course as ldm
from ldm_course import lab

ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
IMAGES = {"image/png", "image/jpeg", "image/svg+xml"}
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.parametrize("name", list(NOTEBOOKS))


def outputs(name: str) -> list[Any]:
    return [output for cell in cells(name, "code") for output in cell.outputs]


def test_the_file_is_valid_and_small(name):
    nbformat.validate(json.loads(NOTEBOOKS[name].read_text(encoding="utf-8")))
    assert NOTEBOOKS[name].stat().st_size < 1.2e6, "large pages are slow on GitHub"


def test_it_was_run_once_from_top_to_bottom_without_an_error(name):
    counts = [cell.execution_count for cell in cells(name, "code")]
    assert counts == list(range(1, len(counts) + 1)), "run all cells of a fresh kernel, then save"
    assert not [output.evalue for output in outputs(name) if output.output_type == "error"]
    assert not [output.text for output in outputs(name) if output.get("name") == "stderr"]


def test_metadata_holds_no_widget_state_and_no_times(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}, "GitHub refuses pages with widget state"
    assert notebook.metadata.kernelspec.name == "python3"
    folded = {"jp-MarkdownHeadingCollapsed", "heading_collapsed"}  # JupyterLab's word for it, and Colab's
    assert not [cell.id for cell in notebook.cells if set(cell.metadata) - {"tags"} - folded]
    for cell in notebook.cells:
        assert (folded & set(cell.metadata) != set()) == cell.source.startswith("## Optional"), cell.id


def test_cells_are_short_and_named(name):
    assert not [cell.id for cell in cells(name, "code") if len(cell.source.splitlines()) > 25]
    assert all(re.fullmatch(r"[a-z0-9-]+", cell.id) for cell in cells(name)), "cells are named, not numbered"


def test_it_opens_with_title_and_badge_and_installs_once_on_colab(name):
    first = cells(name)[0]
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    path = NOTEBOOKS[name].relative_to(ROOT).as_posix()
    target = f"{ADDRESS.replace('github.com', 'colab.research.google.com/github')}/blob/main/{path}"
    assert first.cell_type == "markdown" and first.source.startswith(
        f"# {name[:2]} " if name[0].isdigit() else "# Beyond "
    )
    assert re.findall(r"\[!\[(.+)\]\((.+)\)\]\((.+)\)", first.source) == [("Open in Colab", badge, target)]

    setup = cells(name, "code")[0]
    assert setup.id == "setup" and 'MODEL = "small"' in setup.source
    assert [line.strip() for line in setup.source.splitlines() if "pip " in line] == [
        "%pip install --quiet --no-deps resvg-py {COURSE}"  # what Colab has must stay as it is
    ]
    assert not [cell.id for cell in cells(name, "code")[1:] if "pip install" in cell.source]


def test_images_have_alternative_texts(name):
    for output in outputs(name):
        for kind in set(output.get("data", {})) & IMAGES:
            assert len(output.metadata.get(kind, {}).get("alt", "")) > 20, "use lab.plots.show"
        html = "".join(output.get("data", {}).get("text/html", ""))
        assert html.count("<img") == len(re.findall(r"<img[^>]*\salt=.", html))
    for cell in cells(name, "markdown"):
        assert all(alt.strip() for alt in re.findall(r"!\[(.*?)\]\(", cell.source)), cell.id


def test_a_contact_sheet_follows_each_widget(name):
    code = cells(name, "code")
    for cell, below in zip(code, [*code[1:], None]):
        if not cell.id.startswith("bet-") and any(WIDGET in output.get("data", {}) for output in cell.outputs):
            assert below and any(IMAGES & set(output.get("data", {})) for output in below.outputs), cell.id


def test_the_source_it_shows_is_the_package_s(name):
    shows = [cell for cell in cells(name, "code") if "show_source(" in cell.source]
    assert shows, "each notebook shows the package's own source"
    for cell in shows:
        shown = "".join(output.data["text/markdown"] for output in cell.outputs)
        things = re.search(r"show_source\((.*?)\)", cell.source, re.DOTALL)[1].split(",")
        for thing in filter(None, map(str.strip, things)):
            source = inspect.getsource(eval(thing, {"ldm": ldm, "lab": lab, "nb": own_package(name)}))
            assert source in shown, f"{thing} has changed since {name} was run"

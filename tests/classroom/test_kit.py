"""Material for a class: students' copies, booklet, slides and handout."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from lab_helpers import NOTEBOOKS, own_package

from ldm_course.classroom import kit
from ldm_course.classroom.answers import Submission
from ldm_course.classroom.booklet import bets_of, heading_of, is_bet
from ldm_course.classroom.course import course_notebooks
from ldm_course.classroom.handouts import quiz_of, students_copy
from ldm_course.classroom.page import KATEX, print_pdf
from ldm_course.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
COURSE = course_notebooks(ROOT / "notebooks")
each_notebook = pytest.mark.parametrize("notebook", COURSE, ids=lambda notebook: notebook.name)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Everything, with stand-ins for the packages from npm, and the zips."""
    folder = tmp_path_factory.mktemp("class")
    for name in [f"katex/dist/{name}" for name in (*KATEX, "fonts/a.woff2")] + [
        f"reveal.js/dist/{name}" for name in ("reset.css", "reveal.css", "reveal.js", "plugin/notes.js")
    ]:
        (folder / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "packages" / name).touch()
    return folder / "out", kit.build(COURSE, folder / "out", folder / "packages")


@each_notebook
def test_a_student_s_copy_has_no_outputs_and_no_answers(notebook):
    text = students_copy(notebook)
    copy = nbformat.reads(text, as_version=4)
    nbformat.validate(json.loads(text))
    assert not [cell.id for cell in copy.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    prose = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert "<summary>Solution" not in prose and "Open in Colab" not in prose
    for exercise in notebook.exercises():
        assert exercise.solution not in prose, exercise.title
    for question, answer in quiz_of(notebook):
        assert question in prose and answer not in prose
    hints = len(re.findall("<summary>Hint", notebook.cells_text()))
    assert prose.count("<summary>Hint") == hints and len(text) < 100_000
    untouched = Submission(text, COURSE)  # `ldm-course grade` reads it
    assert untouched.notebook is notebook
    assert not any(untouched.answer(exercise).tried for exercise in notebook.exercises())


@each_notebook
def test_every_bet_has_an_outcome_and_every_exercise_a_heading(notebook):
    bets = [cell for cell in notebook.cells if is_bet(cell)]
    assert len(bets_of(notebook)) == len(bets)
    assert all(heading_of(notebook, exercise)[1] for exercise in notebook.exercises())


@each_notebook
def test_the_booklet_holds_all_answers(built, notebook):
    page = (built[0] / "booklet" / "booklet.html").read_text(encoding="utf-8")
    assert f'id="{notebook.name}"' in page
    words = re.sub(r"<[^>]*>|&\w+;|\W", "", page)
    for exercise in notebook.exercises():
        first = re.sub(r"&\w+;|\W", "", exercise.solution.splitlines()[0])
        assert first in words, exercise.title


def test_pages_need_nothing_from_outside(built):
    pages = list(built[0].rglob("*.html"))
    assert len(pages) == len(COURSE) + 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:src|<link[^>]* href)="([^"]*)"', text):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_slides_hold_the_figures_with_their_captions_and_notes(built):
    for notebook in COURSE:
        text = (built[0] / "slides" / f"{notebook.name}.html").read_text(encoding="utf-8")
        images = re.findall(r'<img src="figures/[^"]*" alt="([^"]*)"', text)
        assert len(images) >= 8 and all(len(caption) > 20 for caption in images)
        assert text.count('<aside class="notes">') >= 15
        assert text.count("<h2>Your bet</h2>") == len(bets_of(notebook))
        assert text.count("<h2>Quiz</h2>") == len(quiz_of(notebook))


def test_zips_hold_the_folders(built):
    folder, zips = built
    assert [file.name for file in zips] == ["students.zip", "booklet.zip", "slides.zip", "handout.zip"]
    for file in zips:
        here = {path.relative_to(folder).as_posix() for path in (folder / file.stem).rglob("*") if path.is_file()}
        assert set(zipfile.ZipFile(file).namelist()) == here


def test_without_the_packages_it_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="npm --prefix docs/class ci"):
        kit.build(COURSE, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_recorded_hints_are_those_of_the_typical_mistakes():
    """Where they are not: OMP_NUM_THREADS=1 python tests/classroom/make_hints.py"""
    recorded = json.loads((ROOT / "docs" / "class" / "hints.json").read_text(encoding="utf-8"))
    for name, exercises in recorded.items():
        if name not in NOTEBOOKS:
            continue
        mistakes = import_module(f"mistakes.{own_package(name).__name__.rpartition('.')[2]}").MISTAKES
        for title, answers in exercises.items():
            words = dict(mistakes.get(title, []))
            assert all(words[answer] in hint for answer, hint in answers if answer in words), (name, title)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.skipif(not (ROOT / "docs/class/node_modules/katex").is_dir(), reason="needs KaTeX: make class")
def test_the_handout_is_one_page(tmp_path):
    folder = tmp_path / "handout"
    folder.mkdir()
    kit.write_handout(COURSE, folder, ROOT / "docs" / "class" / "node_modules")
    pdf = print_pdf(folder / "handout.html")
    assert pdf is not None and len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) == 1

"""The teacher's booklet: times, checkpoints, bets, solutions, typical mistakes and the quizzes' answers."""

from __future__ import annotations

import ast
import json
import re
from html import escape
from pathlib import Path

from ldm_course.classroom.course import Cell, Exercise, Notebook
from ldm_course.classroom.handouts import FOLD, printed, quiz_of
from ldm_course.classroom.page import markdown

LEVEL = re.compile(r"^#+ (.*?)\s*([●○]{3})\s*$", re.MULTILINE)
LONGEST = 4  # lines of a wrong answer that is shown


def booklet(course: list[Notebook], root: Path) -> str:
    """The body of the booklet, as HTML.

    root: the clone. Its docs/class holds what was measured: times.json, by benchmarks/notebook_times.py, and
    hints.json, what the checks say to the typical mistakes, by tests/classroom/make_hints.py.
    """
    times, hints = (_measured(root / "docs" / "class" / name) for name in ("times.json", "hints.json"))
    parts = ["<h1>The teacher's booklet</h1>", markdown(INTRODUCTION), _contents(course)]
    parts += [_times(course, times), _questions(root / "docs" / "teaching.md")]
    parts += [_chapter(notebook, hints.get(notebook.name, {})) for notebook in course]
    return "\n".join(filter(None, parts))


def _measured(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


INTRODUCTION = """
What the students' copies lack: answers, the mistakes that people make with the hint that each gets, what the
experiments show, and how long everything takes. Everything here is taken from the notebooks, from their checks, and
from `docs/teaching.md`.
"""


def _contents(course: list[Notebook]) -> str:
    links = [f'<li><a href="#{each.name}">{escape(title_of(each))}</a></li>' for each in course]
    return f"<ul>{''.join(links)}</ul>"


def title_of(notebook: Notebook) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _times(course: list[Notebook], times: dict) -> str:
    """What running takes, from docs/class/times.json: seconds of each notebook, and its three slowest cells."""
    if not times:
        return ""
    lines = [f"<h2>How long running takes</h2><p>{escape(times['machine'])}</p>", "<table><tr><th>notebook</th>"]
    lines.append("<th>all cells, s</th><th>the slowest cells, s</th></tr>")
    for notebook in course:
        cells = times["notebooks"].get(notebook.name, {})
        if not cells:
            continue
        slowest = sorted(((s, name) for name, s in cells.items() if name != "all others"), reverse=True)[:3]
        words = ", ".join(f"{name} {seconds:.0f}" for seconds, name in slowest)
        lines.append(f"<tr><td>{notebook.short}</td><td>{sum(cells.values()):.0f}</td><td>{escape(words)}</td></tr>")
    return "\n".join([*lines, "</table>"])


def _questions(teaching: Path) -> str:
    """The questions to pause at, with answers: that section of docs/teaching.md."""
    text = teaching.read_text(encoding="utf-8") if teaching.is_file() else ""
    found = re.search(r"^## Pause and ask\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    words = re.sub(r"\[([^\]]*)\]\((?!http)[^)]*\)", r"\1", found[1]) if found else ""  # links lead out of the zip
    return f"<h2>Pause and ask</h2>\n{markdown(words)}" if words else ""


def _chapter(notebook: Notebook, hints: dict[str, list[list[str]]]) -> str:
    parts = [f'<section class="chapter"><h2 id="{notebook.name}">{escape(title_of(notebook))}</h2>']
    time = re.search(r"^(\*\*Time\.\*\*.*|.*(?:takes|Plan).*hours?.*)$", notebook.cells[0].source, re.MULTILINE)
    parts += [markdown(time[0])] if time else []
    checkpoints = [
        cell.source.removeprefix("> **Checkpoint.** ") for cell in notebook.cells if cell.id.startswith("checkpoint-")
    ]
    if checkpoints:
        parts.append("<h3>Checkpoints</h3>" + markdown("\n".join(f"- {words}" for words in checkpoints)))
    if bets := bets_of(notebook):
        parts.append("<h3>Bets</h3>")
        parts += [markdown(f"**{question}** It is: *{outcome}*.") for question, outcome in bets]
    parts.append("<h3>Exercises</h3>")
    parts += [_exercise(notebook, each, hints.get(each.title, [])) for each in notebook.exercises()]
    parts.append("<h3>Paper and pencil</h3>" + pencil if (pencil := _pencil(notebook)) else "")
    quiz = [f"**{question}**\n\n{answer}" for question, answer in quiz_of(notebook)]
    parts += ["<h3>Quiz</h3>", markdown("\n\n".join(quiz)), "</section>"]
    return "\n".join(parts)


def heading_of(notebook: Notebook, exercise: Exercise) -> tuple[str, str]:
    """The exercise's heading and its level, from the Markdown above it."""
    above = [cell.source for cell in notebook.cells[: exercise.cell] if cell.kind == "markdown"]
    found = [match for source in above for match in LEVEL.finditer(source)]
    return (found[-1][1], found[-1][2]) if found else (exercise.title, "")


def _exercise(notebook: Notebook, exercise: Exercise, mistakes: list[list[str]]) -> str:
    name, level = heading_of(notebook, exercise)
    parts = [f"<h4>{escape(name)} {level}</h4>", markdown(f"```python\n{exercise.solution}```")]
    below = notebook.cells[exercise.cell + 1].source.split("```")[-1].removesuffix("</details>").strip()
    parts += [markdown(below)] if below else []
    shown: dict[str, str] = {}
    for answer, hint in mistakes:
        if hint not in shown and len(answer.splitlines()) <= LONGEST:
            shown[hint] = answer
    if shown:
        rows = [
            f"<tr><td><pre>{escape(answer)}</pre></td><td>{escape(hint)}</td></tr>" for hint, answer in shown.items()
        ]
        parts.append(f"<table><tr><th>typical mistake</th><th>its hint</th></tr>{''.join(rows)}</table>")
    return "\n".join(parts)


def _pencil(notebook: Notebook) -> str:
    """The folded answers to questions on paper, wherever they stand."""
    found = []
    for cell in notebook.cells:
        if cell.kind == "markdown" and not cell.id.startswith("solution-"):
            for fold in FOLD.finditer(cell.source):
                if fold[1].startswith(("Paper and pencil", "Solution")):
                    name = LEVEL.findall(cell.source)[-1][0] if fold[1] == "Solution" else fold[1]
                    found.append(f"**{name}**\n\n{fold[2]}")
    return markdown("\n\n".join(found))


def is_bet(cell: Cell) -> bool:
    return cell.kind == "code" and cell.id.startswith("bet-")


def bets_of(notebook: Notebook) -> list[tuple[str, str]]:
    """Each bet's question, and how it came out in the notebook's run."""
    found: list[tuple[str, str]] = []
    question = ""
    for cell in notebook.cells:
        if is_bet(cell):
            calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            question = str(ast.literal_eval(calls[0].args[0]))
        elif question and (outcome := re.search(r"It is: (.*?)\. \(", printed(cell.outputs))):
            found.append((question, outcome[1]))
            question = ""
    return found

"""Slides from the notebooks' own figures: a Reveal deck for each notebook, with speaker's notes."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ldm_course.classroom.booklet import bets_of, heading_of, is_bet, title_of
from ldm_course.classroom.course import EXERCISE, Cell, Notebook
from ldm_course.classroom.handouts import FOLD, printed, quiz_of
from ldm_course.classroom.page import markdown

IMAGES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}
EXERCISES = ("Exercise", "Open build", "Build:", "Paper and pencil")  # what their headings begin with
LONGEST = 12  # lines of what a cell printed that fit on a slide
DECK = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="assets/reset.css">
<link rel="stylesheet" href="assets/reveal.css">
<link rel="stylesheet" href="assets/katex.min.css">
<link rel="stylesheet" href="assets/slides.css">
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script src="assets/reveal.js"></script>
<script src="assets/notes.js"></script>
<script src="assets/katex.min.js"></script>
<script src="assets/auto-render.min.js"></script>
<script>
renderMathInElement(document.body, {{ignoredClasses: ["notes"], delimiters: [
  {{left: "$$", right: "$$", display: true}}, {{left: "$", right: "$", display: false}}]}});
Reveal.initialize({{hash: true, slideNumber: "c/t", width: 1280, height: 720, margin: 0.04, transition: "none",
  center: false, controls: false, navigationMode: "linear", plugins: [RevealNotes]}});
</script>
</body>
</html>
"""


@dataclass
class Slide:
    """body: HTML. notes: Markdown for the speaker. new: whether it begins a new stack of slides."""

    body: str
    notes: str = ""
    new: bool = False

    def html(self) -> str:
        notes = f'<aside class="notes">{markdown(self.notes)}</aside>' if self.notes.strip() else ""
        return f"<section>\n{self.body}\n{notes}</section>"


def deck(notebook: Notebook, figures: Path) -> str:
    """The deck of one notebook, as a page. Its figures are written into the folder, which lies beside the page."""
    stacks: list[list[Slide]] = []
    for slide in _slides(notebook, figures):
        if slide.new or not stacks:
            stacks.append([])
        stacks[-1].append(slide)
    html = [f"<section>\n{''.join(slide.html() for slide in stack)}\n</section>" for stack in stacks]
    return DECK.format(title=escape(title_of(notebook)), slides="\n".join(html))


def _slides(notebook: Notebook, figures: Path) -> list[Slide]:
    slides = [_title(notebook)]
    outcomes, exercises = dict(bets_of(notebook)), {each.cell: each for each in notebook.exercises()}
    heading, prose, new = "", "", False
    for place, cell in enumerate(notebook.cells[1:], 1):
        if cell.kind == "markdown":
            if cell.source.startswith(("## Quiz", "## Optional")):
                break
            if not cell.id.startswith("solution-"):
                headings = re.findall(r"^(#{2,3}) (.*)$", cell.source, re.MULTILINE)
                names = [name for _, name in headings if not name.startswith(EXERCISES)]
                heading = names[-1] if names else heading
                new = new or any(marks == "##" for marks, _ in headings)
                prose = f"{prose}\n\n{_plain(cell.source)}".strip()
            continue
        if cell.id == "setup":
            prose = ""
            continue
        found = _of_code(notebook, cell, figures, heading, outcomes)
        if cell.id.startswith(EXERCISE) and place in exercises:
            name, level = heading_of(notebook, exercises[place])
            task = prose.rpartition(f"{name} {level}")[2].strip()
            blank = _blank(cell.source)
            size = ' class="long"' if len(blank.splitlines()) > LONGEST else ""
            code = f"<pre{size}><code>{escape(blank)}</code></pre>"
            found.append(Slide(f"<h2>{escape(name)} <small>{level}</small></h2>{markdown(_first(task))}{code}"))
        for slide in found:
            slide.notes, slide.new = f"{prose}\n\n{slide.notes}".strip(), new
            prose, new = "", False
        slides += found
    questions = quiz_of(notebook)
    for i, (question, answer) in enumerate(questions):
        slides.append(Slide(f'<h2>Quiz</h2><div class="question">{markdown(question)}</div>', answer, new=i == 0))
    recap = re.search(r"^## Recap\n+((?:- .*\n?)+)", notebook.cells_text(), re.MULTILINE)
    return [*slides, Slide(f"<h2>Recap</h2>{markdown(recap[1])}", new=True)] if recap else slides


def _title(notebook: Notebook) -> Slide:
    paragraphs = [part for part in notebook.cells[0].source.split("\n\n")[1:] if not part.startswith("[![")]
    aims = "\n\n".join(part for part in paragraphs[1:] if part.startswith(("**After", "- ")))
    body = (
        f'<h1>{escape(title_of(notebook))}</h1><div class="promise">{markdown(paragraphs[0])}</div>{markdown(aims)}'
    )
    return Slide(body, "\n\n".join(part for part in paragraphs[1:] if part not in aims), new=True)


def _of_code(notebook: Notebook, cell: Cell, figures: Path, heading: str, outcomes: dict[str, str]) -> list[Slide]:
    """The slides of a code cell: a bet, or one for each figure, or what it printed."""
    heading = f"<h2>{markdown(heading).removeprefix('<p>').removesuffix('</p>')}</h2>"
    if is_bet(cell):
        words = next(iter("".join(each["data"]["text/plain"]) for each in cell.outputs if "data" in each), "")
        question = next((question for question in outcomes if question in words), "")
        choices = words.removeprefix("(Your bet: ").removesuffix(")").removeprefix(question).strip().split(" · ")
        items = "".join(f"<li>{escape(choice)}</li>" for choice in choices)
        body = (
            f'<h2>Your bet</h2><div class="question"><p>{escape(question)}</p></div><ul class="choices">{items}</ul>'
        )
        return [Slide(body, f"It is: {outcomes.get(question, '')}.")]
    slides, text = [], printed(cell.outputs)
    for i, output in enumerate(cell.outputs):
        for kind, suffix in IMAGES.items():
            if kind in output.get("data", {}):
                data, name = "".join(output["data"][kind]), f"{notebook.short}-{cell.id}-{i}.{suffix}"
                (figures / name).write_bytes(data.encode() if suffix == "svg" else base64.b64decode(data))
                caption = output.get("metadata", {}).get(kind, {}).get("alt", "")
                image = f'<img src="{figures.name}/{name}" alt="{escape(caption)}">'
                slides.append(Slide(f"{heading}<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"))
                break
    if slides:
        slides[-1].notes = f"```\n{text}```" if text else ""
    elif text and len(text.splitlines()) <= LONGEST and not cell.id.startswith((*EXERCISE, "progress")):
        slides.append(Slide(f'{heading}<pre class="printed">{escape(text)}</pre>'))
    return slides


def _plain(source: str) -> str:
    """Prose for the speaker: without folds."""
    return FOLD.sub("", source).strip()


def _first(task: str) -> str:
    """The first paragraph and the first formula of a task."""
    paragraphs = [part for part in task.split("\n\n") if part.strip()]
    formula = next((part for part in paragraphs[1:] if part.startswith("$$")), "")
    return "\n\n".join([*paragraphs[:1], formula])


def _blank(source: str) -> str:
    """The exercise's cell from its decorator on, without what follows the definition."""
    lines = source[max(source.find("@lab.exercise"), 0) :].splitlines()
    end = next((i for i, line in enumerate(lines[2:], 2) if line and not line.startswith((" ", ")"))), len(lines))
    return "\n".join(lines[:end]).rstrip()

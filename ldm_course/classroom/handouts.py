"""Students' copies of the notebooks: without outputs, and without the answers that a class is to find."""

from __future__ import annotations

import json
import re
from typing import Any

from ldm_course.classroom.course import Notebook

SOLUTION = re.compile(r"<details><summary>Solution</summary>.*?</details>\n*", re.DOTALL)
FOLD = re.compile(r"<details><summary>(.*?)</summary>\s*(.*?)\s*</details>", re.DOTALL)
BADGE = re.compile(r"^\[!\[Open in Colab\].*\n+", re.MULTILINE)


def students_copy(notebook: Notebook) -> str:
    """The notebook's file without outputs, solutions, the quiz's answers and the badge, which opens the full one.

    Hints stay, and so do folded remarks.
    """
    copy = json.loads(notebook.path.read_text(encoding="utf-8"))
    for cell in copy["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        else:
            source = SOLUTION.sub("", BADGE.sub("", source)).rstrip()
            if source.startswith("## Quiz"):
                source = _without_answers(source)
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(copy, ensure_ascii=False, indent=1) + "\n"


def _without_answers(quiz: str) -> str:
    """The questions of a quiz, whose answers are folded; what follows the quiz stays."""
    head, follows, rest = quiz.partition("\n## Recap")
    return FOLD.sub(lambda fold: f"**{fold[1]}**", head) + follows + rest


def quiz_of(notebook: Notebook) -> list[tuple[str, str]]:
    """The questions and answers of a notebook's quiz, as Markdown."""
    found: list[tuple[str, str]] = []
    for cell in notebook.cells:
        if cell.kind == "markdown" and cell.source.startswith("## Quiz"):
            found += [(fold[1], fold[2]) for fold in FOLD.finditer(cell.source.partition("\n## Recap")[0])]
    return found


def printed(outputs: list[dict[str, Any]]) -> str:
    """What a cell printed."""
    return "".join("".join(output.get("text", "")) for output in outputs if output["output_type"] == "stream")

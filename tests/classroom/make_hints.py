"""Write docs/class/hints.json: what the checks say to each typical mistake of tests/lab/mistakes, for the booklet.

OMP_NUM_THREADS=1 python tests/classroom/make_hints.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "lab")]

from helpers import our_model, tiny_pipeline  # noqa: E402
from lab_helpers import NOTEBOOKS, exercises, head, judge, own_package  # noqa: E402


def main() -> None:
    pipe = tiny_pipeline(Path(tempfile.mkdtemp()))
    pipe.set_progress_bar_config(disable=True)
    model = our_model(pipe)
    found: dict[str, dict[str, list[list[str]]]] = {}
    for name in NOTEBOOKS:
        mistakes = import_module(f"mistakes.{own_package(name).__name__.rpartition('.')[2]}").MISTAKES
        found[name] = {}
        for title in exercises(name):
            for body, _ in mistakes.get(title, []):
                whole = body if body.startswith(("def ", "class ")) else f"{head(name, title)}\n    {body}\n"
                hint = judge(name, title, whole, model).message
                found[name].setdefault(title, []).append([body, hint])
        print(name, sum(map(len, found[name].values())), flush=True)
    (ROOT / "docs" / "class" / "hints.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()

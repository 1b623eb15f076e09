"""How long each cell of the notebooks takes: docs/class/times.json, for the teacher's booklet.

    OMP_NUM_THREADS=1 python benchmarks/notebook_times.py [notebooks/04_txt2img.ipynb ...]

Runs the notebooks one after the other, as Run All does, and keeps nothing of their outputs. Cells under half a second
are added up in one line. Run it on a quiet machine: the times are those of the clock.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "class" / "times.json"
SHORTEST = 0.5


def cell_times(path: Path) -> dict[str, float]:
    """Seconds of each code cell, by its name."""
    began: dict[str, float] = {}
    took: dict[str, float] = {}

    def begin(cell: Any, cell_index: int, **_: Any) -> None:
        began[cell.id] = time.perf_counter()

    def end(cell: Any, cell_index: int, **_: Any) -> None:
        took[cell.id] = time.perf_counter() - began[cell.id]

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, on_cell_execute=begin, on_cell_executed=end).execute(cwd=str(path.parent))
    long = {name: round(seconds, 1) for name, seconds in took.items() if seconds >= SHORTEST}
    return long | {"all others": round(sum(took.values()) - sum(long.values()), 1)}


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("**/*.ipynb"))
    times = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"notebooks": {}}
    times["machine"] = f"{platform.system()}, {platform.machine()}, torch with one thread; on the clock."
    for path in paths:
        times["notebooks"][path.stem] = cell_times(path)
        print(path.stem, f"{sum(times['notebooks'][path.stem].values()):.0f} s", flush=True)
        FILE.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How long each cell of the notebooks takes: docs/class/times.json, for the teacher's booklet.

    OMP_NUM_THREADS=1 python benchmarks/notebook_times.py [notebooks/04_txt2img.ipynb ...]

Runs the notebooks one after the other, as Run All does, and keeps nothing of their outputs. Cells under half a second
are added up in one line. The times are the kernel's CPU times: with one thread they are what a quiet machine needs on
the clock, and they hardly depend on what else runs here.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "class" / "times.json"
SHORTEST = 0.5


def cell_times(path: Path) -> dict[str, float]:
    """Seconds of each code cell, by its name."""
    began: dict[str, float] = {}
    took: dict[str, float] = {}

    def now() -> float:
        return sum(psutil.Process(client.km.provisioner.pid).cpu_times()[:2])

    def begin(cell: Any, cell_index: int, **_: Any) -> None:
        began[cell.id] = now()

    def end(cell: Any, cell_index: int, **_: Any) -> None:
        took[cell.id] = now() - began[cell.id]

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=900, on_cell_execute=begin, on_cell_executed=end)
    client.execute(cwd=str(path.parent))
    long = {name: round(seconds, 1) for name, seconds in took.items() if seconds >= SHORTEST}
    return long | {"all others": round(sum(took.values()) - sum(long.values()), 1)}


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "notebooks").glob("**/*.ipynb"))
    times = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"notebooks": {}}
    about = "torch with one thread. CPU seconds: a quiet machine needs about these on the clock, or fewer."
    times["machine"] = f"{platform.system()}, {platform.machine()}, {about}"
    for path in paths:
        times["notebooks"][path.stem] = cell_times(path)
        print(path.stem, f"{sum(times['notebooks'][path.stem].values()):.0f} s", flush=True)
        FILE.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Grade a folder of submitted notebooks: what each student passed, and which mistake was named."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm_course.classroom.course import Notebook, course_notebooks
from ldm_course.classroom.guard import command
from ldm_course.errors import InputError, one_line

RIGHT, LOOK, WRONG, STOPPED = "right", "look", "wrong", "stopped"  # and "not tried", "broken"
LARGEST = 30_000_000  # bytes of a file that is read at all
STARTING = 300  # seconds that Python and the model may take to load
KEPT = ("LANG", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TEMP", "TMP", "VIRTUAL_ENV")  # of the environment
PACKAGE = Path(__file__).parents[1]
RUNNING: set[subprocess.Popen] = set()
STOPPING = threading.Event()  # after Ctrl-C


@dataclass
class Row:
    """What was found in one file.

    exercises: those of its notebook. verdicts, words: exercise -> verdict, and what there is to say about it.
    problem: why nothing could be graded. filtered: whether the system call filter stood; None if nothing had to run.
    megabytes: the most memory that its process had.
    """

    file: str
    notebook: str = ""
    exercises: list[str] = field(default_factory=list)
    verdicts: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    filtered: bool | None = None
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def right(self) -> int:
        return sum(verdict == RIGHT for verdict in self.verdicts.values())


@dataclass(frozen=True)
class Limits:
    """Of one exercise: seconds on the clock, and megabytes beside those of the model."""

    seconds: float = 120
    megabytes: int = 2000


def submissions(folder: Path) -> list[Path]:
    """The notebooks in a folder and below it, hidden folders left out. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name the one that holds the submitted notebooks.")
    found = [
        path for path in folder.rglob("*.ipynb") if not any(part.startswith(".") for part in _below(path, folder))
    ]
    if not found:
        raise InputError(f"There are no notebooks in {folder}; their names end in .ipynb.")
    return sorted(found)


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def grade(
    folder: Path,
    course: Sequence[Notebook] | None = None,
    limits: Limits | None = None,
    jobs: int = 1,
    progress: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Grade every notebook of a folder, each in a fresh process.

    Args:
        course: the course's own notebooks, with their solutions; None looks for them.
        jobs: how many processes run at a time.
        progress: called with each row when it is done.

    Returns a row for each file, in the order of their names. Raises InputError before anything runs.
    """
    course, limits, files = course or course_notebooks(), limits or Limits(), submissions(folder)
    rows: dict[Path, Row] = {}
    STOPPING.clear()
    with ThreadPoolExecutor(jobs) as pool:
        names = {file: one_line("/".join(_below(file, folder))) for file in files}
        tasks = {pool.submit(grade_one, file, names[file], course, limits): file for file in files}
        try:
            for task in as_completed(tasks):
                rows[tasks[task]] = task.result()
                progress(task.result())
        except KeyboardInterrupt:
            STOPPING.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.kill()
            raise
    return [rows[file] for file in files]


def grade_one(file: Path, name: str, course: Sequence[Notebook], limits: Limits) -> Row:
    """Grade one file. Whatever is in it, it has a row."""
    row, start = Row(name), time.monotonic()
    try:
        size = file.stat().st_size if file.is_file() else None
        text = file.read_bytes() if size is not None and size <= LARGEST else None
    except OSError as error:
        row.problem = f"it cannot be read: {error.strerror}"
        return row
    if text is None:
        row.problem = "not a file" if size is None else f"larger than {LARGEST // 10**6} MB"
        return row
    while _run(text, row, course[0].path.parent.resolve(), limits) and not STOPPING.is_set():
        pass  # an exercise had to be stopped, and its process with it: the others need a new one
    row.seconds = time.monotonic() - start
    return row


def _run(text: bytes, row: Row, course: Path, limits: Limits) -> bool:
    """Run what has no verdict yet. Returns True if an exercise ended the process before it was done."""
    token, current, look = secrets.token_hex(16), "", list[str]()
    request = {"token": token, "course": str(course), "done": list(row.verdicts), "megabytes": limits.megabytes}
    with _runner(json.dumps(request).encode() + b"\n" + text, course) as lines:
        deadline = time.monotonic() + STARTING
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = b"late"
            if line in (b"late", b""):  # b"": the process has ended
                late = f"it took more than {limits.seconds:g} s" if line else "it ended the program"
                if not current:
                    row.problem = row.problem or f"could not be run: {late}"
                    return False
                row.verdicts[current], row.words[current] = STOPPED, late
                return True
            event = _event(line, token)
            if event is None:
                look = [*look, "writes to the grader"][:9]
            elif "broken" in event:
                row.problem = event["broken"]
            elif "notebook" in event:
                row.notebook, row.exercises = event["notebook"], event["exercises"]
            elif "filtered" in event:
                row.filtered = event["filtered"]
            elif "begin" in event:
                current, look, deadline = event["begin"], list(event["look"]), time.monotonic() + limits.seconds
            elif "exercise" in event:
                look += [f"changes {name}" for name in event.get("changed", ())]
                _take(row, event, look)
                current, look, deadline = "", [], time.monotonic() + STARTING
            else:
                for lost in set(row.exercises) - set(row.verdicts) if not row.problem else ():
                    row.verdicts[lost], row.words[lost] = STOPPED, "its verdict was lost"
                return False


def _take(row: Row, event: dict[str, Any], look: list[str]) -> None:
    exercise, verdict, words = event["exercise"], event["verdict"], one_line(event["message"])
    if verdict == RIGHT and look:
        verdict, words = LOOK, "right, but it " + ", ".join(dict.fromkeys(look))
    row.verdicts[exercise], row.words[exercise] = verdict, words[:500]
    row.megabytes = max(row.megabytes, event.get("megabytes", 0.0))


def _event(line: bytes, token: str) -> dict[str, Any] | None:
    """What the runner says; None for a line that is not the runner's."""
    try:
        event = json.loads(line)
        return event if event.get("token") == token else None
    except (ValueError, AttributeError, RecursionError):
        return None


@contextlib.contextmanager
def _runner(given: bytes, course: Path) -> Iterator[queue.Queue[bytes]]:
    """A runner that reads what is given; the lines that it writes arrive in the queue, and b"" after the last."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), PACKAGE.parent, course, *map(Path, filter(None, sys.path))]
    program = command([sys.executable, "-P", "-m", "ldm_course.classroom.runner"], folders)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    search = os.pathsep.join([str(PACKAGE.parent), *filter(None, sys.path)])
    environment |= threads | {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": search}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    lines: queue.Queue[bytes] = queue.Queue(1000)
    with subprocess.Popen(program, env=environment, **pipes) as process:  # type: ignore[call-overload]

        def read() -> None:
            while line := process.stdout.readline(100_000):
                if line.strip():
                    lines.put(line)
            lines.put(b"")

        threading.Thread(target=read, daemon=True).start()
        RUNNING.add(process)
        try:
            with contextlib.suppress(OSError):  # it may have died already
                process.stdin.write(given)
                process.stdin.close()
            yield lines
        finally:
            RUNNING.discard(process)
            process.kill()
            while not lines.empty():
                lines.get()  # so that the reader comes to its end


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV: file, notebook, right, of, problem, and a column for each exercise of the notebooks found."""
    columns = list(dict.fromkeys((row.notebook, name) for row in rows for name in row.exercises))
    columns.sort(key=lambda column: column[0])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "notebook", "right", "of", "problem", *(" ".join(column) for column in columns)])
    for row in rows:
        cells: list[object] = [_plain(row.file), row.notebook, row.right, len(row.exercises), _plain(row.problem)]
        for notebook, name in columns:
            verdict = row.verdicts.get(name, "") if notebook == row.notebook else ""
            cells.append(": ".join(filter(None, [verdict, row.words.get(name, "") if verdict else ""])))
        writer.writerow(cells)
    return text.getvalue()


def _plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def frequent(rows: Sequence[Row], most: int = 5) -> list[str]:
    """The mistakes that were named most often, one line each."""
    named = Counter(
        f"{row.notebook} {name}: {row.words[name]}"
        for row in rows
        for name, verdict in row.verdicts.items()
        if verdict == WRONG
    )
    return [f"{count} x {mistake}" for mistake, count in named.most_common(most)]

"""Material for a class: `make class`, or `python -m ldm_course.classroom.kit`.

Writes into build/class: students' copies of the notebooks, the teacher's booklet, slides, and a handout of one page,
each as a folder and as a zip. It runs no notebook: all of it comes from the committed ones.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import sys
import time
import zipfile
from pathlib import Path

from ldm_course.classroom.booklet import booklet
from ldm_course.classroom.course import Notebook, course_notebooks
from ldm_course.classroom.handouts import students_copy
from ldm_course.classroom.page import copy_assets, markdown, page, print_pdf
from ldm_course.classroom.slides import deck
from ldm_course.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
README = "Open it with JupyterLab (`make lab` in a clone of the course), or on Colab with File > Upload notebook.\n"


def build(course: list[Notebook], out: Path, packages: Path) -> list[Path]:
    """Write everything, and return the zips. `packages`: the node_modules with Reveal and KaTeX."""
    if not (packages / "reveal.js" / "dist").is_dir():
        raise InputError(f"There is no Reveal in {packages}; run: npm --prefix docs/class ci")
    shutil.rmtree(out, ignore_errors=True)
    folders = {name: out / name for name in ("students", "booklet", "slides", "handout")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_students(course, folders["students"])
    write_booklet(course, folders["booklet"], packages)
    write_slides(course, folders["slides"], packages)
    write_handout(course, folders["handout"], packages)
    return [_zipped(folder) for folder in folders.values()]


def write_students(course: list[Notebook], folder: Path) -> None:
    for notebook in course:
        place = folder / ("beyond" if notebook.path.parent.name == "beyond" else "") / notebook.path.name
        place.parent.mkdir(exist_ok=True)
        place.write_text(students_copy(notebook), encoding="utf-8")
    (folder / "README.md").write_text(README, encoding="utf-8")


def write_booklet(course: list[Notebook], folder: Path, packages: Path) -> None:
    copy_assets(folder / "assets", packages, ("booklet.css",))
    file = folder / "booklet.html"
    file.write_text(page("The teacher's booklet", booklet(course, ROOT), "booklet.css"), encoding="utf-8")
    print_pdf(file)


def write_slides(course: list[Notebook], folder: Path, packages: Path) -> None:
    copy_assets(folder / "assets", packages, ("slides.css",))
    reveal = packages / "reveal.js" / "dist"
    for file in ("reset.css", "reveal.css", "reveal.js", "plugin/notes.js"):
        shutil.copy(reveal / file, folder / "assets")
    figures = folder / "figures"
    figures.mkdir()
    for notebook in course:
        (folder / f"{notebook.name}.html").write_text(deck(notebook, figures), encoding="utf-8")


def write_handout(course: list[Notebook], folder: Path, packages: Path) -> None:
    copy_assets(folder / "assets", packages, ("handout.css",))
    outputs = [output for each in course for cell in each.cells if cell.id == "flow" for output in cell.outputs]
    loop = next(output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {}))
    (folder / "assets" / "loop.png").write_bytes(base64.b64decode("".join(loop)))
    file = folder / "handout.html"
    text = (ROOT / "docs" / "class" / "handout.md").read_text(encoding="utf-8")
    file.write_text(page("Latent diffusion on one page", markdown(text), "handout.css"), encoding="utf-8")
    print_pdf(file)


def _zipped(folder: Path) -> Path:
    """The folder as a zip beside it, the same bytes for the same files."""
    file = folder.with_suffix(".zip")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="Material for a class: copies, booklet, slides, handout.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "class")
    parser.add_argument("--packages", type=Path, default=ROOT / "docs" / "class" / "node_modules")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        for file in build(course_notebooks(ROOT / "notebooks"), options.out, options.packages):
            print(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB")
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

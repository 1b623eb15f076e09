"""What Windows and macOS lack or do otherwise, simulated here: docs/windows_macos.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ldm_course import image_files
from ldm_course.scenes import dataset

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = """
import builtins, importlib, pkgutil, sys

UNIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
real = builtins.__import__

def guarded(name, globals=None, *rest, **options):
    if name in UNIX and str((globals or {}).get("__name__", "")).startswith("ldm_course"):
        raise ImportError(f"No module named {name!r}, as on Windows")
    return real(name, globals, *rest, **options)

builtins.__import__ = guarded
import ldm_course
for found in pkgutil.walk_packages(ldm_course.__path__, "ldm_course."):
    importlib.import_module(found.name)
"""


def run(code, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_every_module_is_imported_without_what_only_unix_has():
    done = run(EVERYTHING)
    assert done.returncode == 0, done.stderr


def test_text_is_read_and_written_as_utf_8():
    """Every open(), read_text() and write_text() of the package names its encoding."""
    import ast

    for file in sorted((ROOT / "ldm_course").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                given = {keyword.arg for keyword in node.keywords}
                of_a_path = isinstance(node.func, ast.Attribute) and name in ("read_text", "write_text")
                mode = ast.unparse(node.args[1]) if len(node.args) > 1 else "'r'"
                of_a_name = isinstance(node.func, ast.Name) and name == "open" and "b" not in mode
                assert not (of_a_path or of_a_name) or "encoding" in given, f"{file.name}, line {node.lineno}"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_no_file_is_mapped_while_it_is_renamed(tmp_path, monkeypatch):
    """Windows refuses that."""

    def replace(source, target):
        assert str(source) not in Path("/proc/self/maps").read_text()
        os.rename(source, target)

    monkeypatch.setattr(dataset.os, "replace", replace)
    assert dataset.render_scenes(tmp_path, "train", seed=0, count=2, size=16).shape == (2, 16, 16, 3)


def test_an_image_is_written_where_hard_links_are_refused(tmp_path, monkeypatch):
    """As on the FAT file systems of sticks, on any system."""
    from PIL import Image

    def refuse(*args):
        raise OSError("hard links are not supported")

    monkeypatch.setattr(image_files.os, "link", refuse)
    monkeypatch.chdir(tmp_path)
    for name in ("a-dog.png", "a-dog-2.png"):
        assert image_files.write_image(Image.new("RGB", (8, 8)), None, "a dog").name == name


def test_the_training_images_are_rendered_by_new_processes(monkeypatch, tmp_path):
    """ "spawn", the only way on Windows, on every system: what is tested here is what runs there."""
    asked = []
    real = dataset.get_context
    monkeypatch.setattr(dataset, "get_context", lambda method: asked.append(method) or real(method))
    dataset.render_scenes(tmp_path, "train", seed=0, count=2, size=16)
    assert asked == ["spawn"]


def test_signs_that_a_console_cannot_show_are_no_error():
    code = "from ldm_course.cli import main; import sys; print('✓ ᾱ', flush=True); main(['--version'])"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252:backslashreplace", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0 and b"ldm-course" in done.stdout


def test_the_makefile_has_no_word_that_make_3_81_does_not_know():
    """macOS ships that version."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for newer in (".ONESHELL", "$(file ", "$(intcmp", "$(let ", "!=", "::=", "undefine", ".SHELLSTATUS"):
        assert newer not in text, newer

"""The project's own files agree: versions, dependencies, links, the README's code, and what the wheel holds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ldm_course

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWNER_NAME = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
FOUND = [path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))]
MARKDOWN = [path.as_posix() for path in FOUND if "node_modules" not in path.parts]
NOTEBOOKS = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("notebooks/**/*.ipynb"))]
PAGES = [*MARKDOWN, *NOTEBOOKS, "ldm_course/pretrained/README.md"]


def requirements(*extras: str) -> list[Requirement]:
    """The requirements of the core and of the named extras, without the project's references to itself."""
    lines = [*PROJECT["dependencies"], *(line for name in extras for line in PROJECT["optional-dependencies"][name])]
    return [need for need in map(Requirement, lines) if canonicalize_name(need.name) != PROJECT["name"]]


def pins(path: str) -> dict[str, str]:
    """A file of exact pins, which fit any platform, as name -> version."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith("#")]
    found = {canonicalize_name(pin.name): str(pin.specifier) for pin in map(Requirement, lines)}
    assert len(found) == len(lines) and all(pin[:2] == "==" and "+" not in pin for pin in found.values()), path
    return {name: pin.removeprefix("==") for name, pin in found.items()}


def text_of(page: str, kinds: tuple[str, ...] = ("markdown", "code")) -> str:
    """A Markdown file, or the sources of a notebook's cells."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] in kinds)
    return text


def run(code: str, folder: Path = ROOT) -> str:
    """The output of a fresh Python."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- versions and dependencies ---


def test_version():
    version = PROJECT["version"]
    assert ldm_course.__version__ == version, "another version is installed; run `pip install -e .` again"
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


@pytest.mark.parametrize("path", ["constraints.txt", "tests/versions/colab.txt", "tests/versions/lowest.txt"])
def test_pins_are_inside_the_ranges(path):
    pinned = pins(path)
    for need in requirements("lab", "train", "export", "test", "browser"):
        version = pinned.get(canonicalize_name(need.name))
        assert version is not None or path != "constraints.txt", f"{path} lacks {need.name}"
        assert version is None or need.specifier.contains(version), f"{path}: {version} is outside {need}"


def test_lower_bounds_are_the_tested_ones():
    lowest = pins("tests/versions/lowest.txt")
    for need in requirements("lab", "train"):
        (bound,) = need.specifier
        tested = lowest[canonicalize_name(need.name)]
        assert need.name == "torch" or f"{tested}.0".startswith(f"{bound.version}."), f"{need}, but {tested} was run"


def test_environment_yml():
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    known = {canonicalize_name(need.name) for need in requirements("lab", "train", "test")}
    names = {{"pytorch": "torch"}.get(name, name) for name in conda if not name.startswith("python=")}
    assert names - {"pip"} <= known, "ranges and names belong in pyproject.toml"
    assert pip == {"pip": ["-e .[lab,test]"]}, "relative, so that conda and Binder find the package"


# --- importing ---


def test_importing_the_package_does_not_import_torch():
    assert run("import sys, ldm_course; ldm_course.scenes.Scene(); print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("name", ldm_course.__all__)
def test_public_names(name):
    assert getattr(ldm_course, name) is not None and name in dir(ldm_course)


# --- pages ---


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)\s]+)\)", text_of(page, ("markdown",)))
    for link in [link for link in links if not re.match(r"\w+:", link)]:
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: no heading for {link}"
    text, there = text_of(page), re.escape(OWNER_NAME)
    for path in re.findall(rf"{there}/(?:blob|tree|raw)/main/([^\s)\"'#?]+)", text):
        assert (ROOT / path).exists(), f"{page} links to {path}, which does not exist"
    for ref in re.findall(rf"{there}(?:\.git)?@([\w.-]*\w)", text):
        assert ref == f"v{PROJECT['version']}", f"{page} installs {ref}, not this version"


def anchors(markdown: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_lists_every_notebook_with_its_colab_badge():
    readme = text_of("README.md")
    for page in NOTEBOOKS:
        assert f"]({page})" in readme, f"{page} is not in the README"
        assert f"https://colab.research.google.com/github/{OWNER_NAME}/blob/main/{page}" in readme


@pytest.mark.slow
def test_the_code_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.+?)^```", text_of("README.md"), re.MULTILINE | re.DOTALL)
    assert blocks
    run("\n".join(blocks), tmp_path)


@pytest.mark.parametrize("page", MARKDOWN)
def test_commands_exist(page):
    """The `make` targets, modules and scripts that a page tells the reader to run."""
    text = text_of(page)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE)) <= targets
    for script in re.findall(r"python ((?:benchmarks|docs|tests)/\S+\.py)", text):
        assert (ROOT / script).is_file(), f"{page} runs {script}, which does not exist"
    for module in re.findall(r"-m (ldm_course[\w.]*\w)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{page} runs {module}, which does not exist"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("prompt", ['it\'s a "dog"', "costs $5 $(date) `date`", "#1 -- 100% \\ dog", "-o x"])
def test_make_image_passes_the_prompt_untouched(prompt, tmp_path):
    """In a folder with a space in its name, with a stub that prints its arguments."""
    folder = tmp_path / "a clone"
    stub = folder / ".venv" / "bin" / "ldm-course"
    stub.parent.mkdir(parents=True)
    stub.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    stub.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / "bin" / "python").touch()
    (folder / ".venv" / ".core").touch()
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    command = ["make", "image", f"PROMPT={prompt}", "OUT=my dog.png"]
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["txt2img", "--seed", "1", "-o", "my dog.png", "--", prompt], done.stderr


# --- the wheel ---


def test_the_wheel_holds_the_package_and_its_weights(tmp_path):
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "ldm_course", tmp_path / "ldm_course", ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    run("import setuptools.build_meta as b; b.build_wheel('dist')", tmp_path)
    (wheel,) = (tmp_path / "dist").glob("ldm_course-*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "ldm_course").rglob("*") if path.is_file()}
    assert inside == here, f"missing: {sorted(here - inside)}, extra: {sorted(inside - here)}"

"""Another address for the course, and back, byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from ldm_course.classroom.address import forms, move, tracked
from ldm_course.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
HERE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
SCHEME = "https://"  # apart, so that this file does not name the new addresses itself
FORK, GITLAB = f"{SCHEME}github.com/a-school/course-2027", f"{SCHEME}git.school.example:8443/groups/ml/course"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A copy of the files that git knows, and their bytes."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the clone")
    folder = tmp_path_factory.mktemp("clone")
    copies = []
    for file in tracked(ROOT):
        copy = folder / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        copies.append(copy)
    return folder, copies


@pytest.mark.parametrize("url", [FORK, GITLAB])
def test_there_and_back_is_exact(files, url):
    folder, copies = files
    before = {file: file.read_bytes() for file in copies}
    changed = move(folder, copies, url)
    names = {file.relative_to(folder).as_posix() for file in changed}
    notebooks = {name for name in (file.relative_to(folder).as_posix() for file in copies) if name.endswith(".ipynb")}
    assert {
        "README.md",
        "pyproject.toml",
        "CONTRIBUTING.md",
        "CITATION.cff",
        "docs/addresses.md",
    } | notebooks <= names
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["urls"]["Repository"] == url
    for name in notebooks:
        text = (folder / name).read_text(encoding="utf-8")
        sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
        assert any(f"git+{url}@v" in source for source in sources)
        badge = f"https://colab.research.google.com/github/{(url if url == FORK else HERE)[19:]}/blob/main/{name}"
        assert badge in sources[0]
    if url == FORK:
        assert not any(form.encode() in file.read_bytes() for file in copies for form in forms(HERE))
    move(folder, copies, HERE)
    assert {file: file.read_bytes() for file in copies} == before


def test_only_whole_addresses_are_rewritten(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/a/b"\n')
    page = tmp_path / "page.md"
    page.write_bytes(
        b"https://github.com/a/b. https://github.com/a/bc https://github.com/a/b.git\r\nhttps://a.github.io/b/"
    )
    move(tmp_path, [page], "https://github.com/C/d")
    assert page.read_bytes() == (
        b"https://github.com/C/d. https://github.com/a/bc https://github.com/a/b.git\r\nhttps://c.github.io/d/"
    )


@pytest.mark.parametrize(
    "url, words",
    [
        ("", "no address"),
        ("github.com/a/b", "no address"),
        ("https://github.com/a", "no address"),
        ("https://github.com/a/b.git", "no address"),
        ("https://github.com/a/b c", "no address"),
        ("https://github.com/a/b", "already"),
        ("https://github.com/c/d", "names the new address already"),
    ],
)
def test_bad_addresses_change_nothing(tmp_path, url, words):
    files = [tmp_path / "pyproject.toml", tmp_path / "page.md"]
    files[0].write_text('[project.urls]\nRepository = "https://github.com/a/b"\n')
    files[1].write_text("https://github.com/a/b, copied from https://github.com/c/d")
    before = [file.read_bytes() for file in files]
    with pytest.raises(InputError, match=words):
        move(tmp_path, files, url)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_address_without_one_says_what_to_give(tmp_path):
    done = subprocess.run(["make", "-n", "address", "URL=x"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "ldm_course.classroom.address" in done.stdout


def test_the_citation_names_this_version_and_address():
    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["repository-code"]) == (project["version"], project["urls"]["Repository"])

"""The notebooks' setup cell on a stand-in for Colab: installed from a git server, a repository, a wheel, a folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
WHERE = "\nimport ldm_course\nprint('installed in', ldm_course.__path__[0])\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="needs the clone and git"),
    pytest.mark.skipif(sys.platform == "win32", reason="the fresh environment is laid out as on Unix"),
]


def git(*arguments, cwd=None):
    subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A bare repository with the tag of this version, and a wheel made from it."""
    folder = tmp_path_factory.mktemp("course")
    git("clone", "--quiet", "--bare", str(ROOT), str(folder / "course.git"))
    git("tag", "--force", f"v{VERSION}", "HEAD", cwd=folder / "course.git")
    git("clone", "--quiet", str(folder / "course.git"), str(folder / "clone"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(folder / "clone")], check=True, capture_output=True)
    shutil.rmtree(folder / "clone" / "build", ignore_errors=True)
    return folder


@pytest.fixture
def fresh(tmp_path):
    """An environment that has all packages of this one but the course, as Colab has."""
    folder = tmp_path / "colab"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for old in site.glob("setuptools*"):
        shutil.rmtree(old)
    others = sysconfig.get_path("purelib")  # without its .pth files, the editable course among them
    (site / "others.pth").write_text(others)
    return folder / "bin" / "python"


@pytest.fixture
def server(course):
    """A git server on this machine, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--export-all", f"--base-path={course}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"]
    process = subprocess.Popen(["git", "daemon", *options], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"git://127.0.0.1:{port}/course.git"
    process.terminate()
    process.wait()


def setup_cell(name="04_txt2img"):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell for cell in cells if cell["id"] == "setup")["source"]).partition("\nMODEL = ")[0]


def run(python, address, tmp_path):
    """Run the setup cell up to its MODEL line, and say where the course was imported from."""
    script = tmp_path / "cell.ipy"
    script.write_text(COLAB + setup_cell() + WHERE, encoding="utf-8")
    environment = {
        **os.environ,
        "LDM_COURSE": address,
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    environment = {name: value for name, value in environment.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(python), "-m", "IPython", "--no-banner", str(script)]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("kind", ["git server", "repository", "wheel", "folder"])
def test_the_course_is_installed_from(kind, course, fresh, server, tmp_path):
    (wheel,) = course.glob("*.whl")
    address = {
        "git server": f"git+{server}@v{VERSION}",
        "repository": f"git+file://{course / 'course.git'}@v{VERSION}",
        "wheel": str(wheel),
        "folder": str(course / "clone"),
    }[kind]
    done = run(fresh, address, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = done.stdout.split("installed in ")[-1].strip()
    assert installed.startswith(str(tmp_path / "colab")) and installed.endswith("ldm_course")
    assert (Path(installed) / "pretrained" / "unet").is_dir()


def test_an_address_that_cannot_be_read_ends_in_one_sentence(fresh, tmp_path):
    done = run(fresh, str(tmp_path / "nowhere.whl"), tmp_path)
    assert "could not be installed. Set COURSE" in done.stdout + done.stderr

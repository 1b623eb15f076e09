"""The walls around a student's code, each tried from the inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ldm_course.classroom import guard

pytestmark = pytest.mark.skipif(not guard.can_shut(), reason="no system call filter here")

FORBIDDEN = {
    "fork": "os.fork()",
    "a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "another program": "os.execv('/bin/true', ['true'])",
    "a signal to the parent": "os.kill(os.getppid(), 9)",
    "a socket": "socket.socket()",
    "a socket pair": "socket.socketpair()",
    "a new file": "open(folder + '/new', 'w')",
    "an old file": "open(folder + '/old', 'r+')",
    "an old file, emptied": "os.open(folder + '/old', os.O_RDONLY | os.O_TRUNC)",
    "a folder": "os.mkdir(folder + '/new')",
    "unlink": "os.unlink(folder + '/old')",
    "rename": "os.rename(folder + '/old', folder + '/new')",
    "chmod": "os.chmod(folder + '/old', 0o777)",
    "a link": "os.symlink(folder + '/old', folder + '/new')",
    "the parent's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "memory that is a file": "os.memfd_create('x')",
    "memory": "bytearray(300 * 2**20)",
    "shared memory": "mmap.mmap(-1, 300 * 2**20)",
    "more limits": "resource.setrlimit(resource.RLIMIT_AS, (2**50, 2**50)) or bytearray(300 * 2**20)",
}
ALLOWED = {
    "reading": "open(folder + '/old').read()",
    "some memory": "bytearray(50 * 2**20)",
    "a thread": "[threading.Thread(target=print) for _ in range(2)][0].start()",
    "time": "time.sleep(0.01)",
}


def run(code, folder):
    program = f"""
import mmap, os, resource, socket, threading, time
from ldm_course.classroom.guard import shut
folder = {str(folder)!r}
assert shut(200)
try:
    {code}
except (OSError, MemoryError, ValueError) as error:
    print("refused", type(error).__name__)
else:
    print("allowed")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).split()[:1]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden(what, tmp_path):
    (tmp_path / "old").write_text("old")
    assert run(FORBIDDEN[what], tmp_path) == ["refused"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize("what", ALLOWED)
def test_allowed(what, tmp_path):
    (tmp_path / "old").write_text("old")
    assert "allowed" in run(ALLOWED[what], tmp_path)


def test_both_architectures_have_a_program():
    for machine in guard.ARCHITECTURES:
        program = guard.filter_program(machine)
        assert len(program) % 8 == 0 and len(program) // 8 < 4096


@pytest.mark.skipif(guard.bubblewrap() is None, reason="needs bubblewrap")
def test_bubblewrap_hides_the_home_folder_and_the_network(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").touch()
    monkeypatch.setenv("HOME", str(home))
    program = f"import os, socket; print(os.listdir({str(home)!r}), [name for _, name in socket.if_nameindex()])"
    folders = [Path(sys.prefix), Path(sys.base_prefix)]
    done = subprocess.run(guard.command([sys.executable, "-c", program], folders), capture_output=True, text=True)
    assert done.stdout == "[] ['lo']\n", done.stderr


@pytest.mark.parametrize("filtered, words", [(False, "as you, with all your rights"), (True, "neither write")])
def test_what_is_said_of_the_walls(monkeypatch, filtered, words):
    monkeypatch.setattr(guard, "bubblewrap", lambda: None)
    monkeypatch.setattr(guard, "can_shut", lambda: filtered)
    assert words in guard.sentence() and guard.sentence().count(". ") == 0


def test_without_resource_limits_nothing_is_promised(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows has no such module
    assert guard.shut(100) is False

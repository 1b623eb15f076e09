"""The file that a command writes: whole or not at all; a new name, or the one that was given."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course.image_files import SUFFIXES, check_output, write_image

IMAGE = Image.linear_gradient("L").resize((16, 16)).convert("RGB")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".JPG"])
def test_formats(tmp_path, suffix):
    file = write_image(IMAGE, check_output(f"dog{suffix}"))
    assert file == tmp_path / f"dog{suffix}" and list(tmp_path.iterdir()) == [file]
    assert Image.open(file).size == (16, 16)


@pytest.mark.parametrize(
    "prompt, names",
    [
        (" A dog: 100% red!", ["a-dog-100-red.png", "a-dog-100-red-2.png", "a-dog-100-red-3.png"]),
        ("?!", ["image.png", "image-2.png"]),
        ("ä" * 500, ["ä" * 60 + ".png"]),
    ],
)
def test_new_names(tmp_path, prompt, names):
    assert [write_image(IMAGE, None, prompt).name for _ in names] == names
    assert sorted(os.listdir()) == sorted(names)


def test_a_file_system_without_hard_links(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "link", raising(PermissionError(errno.EPERM, "Operation not permitted")))
    test_new_names(tmp_path, "a dog", ["a-dog.png", "a-dog-2.png"])


def test_a_named_file_is_replaced_and_a_link_kept(tmp_path):
    Path("old.png").write_text("old")
    Path("link.png").symlink_to("old.png")
    assert write_image(IMAGE, check_output("link.png")) == tmp_path / "old.png"
    assert Path("link.png").is_symlink() and Image.open("old.png").size == (16, 16)


@pytest.mark.parametrize("output", [None, "dog.png"])
@pytest.mark.parametrize("broken", [[(Image.Image, "save")], [(os, "link"), (os, "replace")]])
def test_nothing_is_left_when_writing_fails(monkeypatch, output, broken):
    if output:
        Path(output).write_text("old")
    for owner, name in broken:
        monkeypatch.setattr(owner, name, raising(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_image(IMAGE, check_output(output), "a dog")
    assert os.listdir() == ([output] if output else [])
    assert not output or Path(output).read_text() == "old"


@pytest.mark.parametrize("output, words", [("dog", "must end in .png"), *((f"{folder}/dog.png", "There is no folder")
                                           for folder in ("nowhere", "~nobody-here", "loop"))])  # fmt: skip
def test_outputs_that_cannot_be(output, words):
    Path("loop").symlink_to("loop")
    with one_sentence(words):
        check_output(output)


@pytest.mark.parametrize("output", [None, "dog.png"])
def test_a_folder_that_is_read_only(monkeypatch, output):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    with one_sentence("Nothing can be written"):
        check_output(output)

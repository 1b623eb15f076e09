"""The image file that a command writes: whole or not at all, and under a new name unless it was named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ldm_course.errors import InputError

if TYPE_CHECKING:  # `ldm-course --help` does not wait for it
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def check_output(output: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> Path | None:
    """The file that the user named, "~" and links resolved; None if its name is left open.

    Raises InputError unless it ends in one of the suffixes, and its folder (or this one) can be written to.
    """
    file = None if output is None else Path(os.path.realpath(os.path.expanduser(output)))
    folder = Path.cwd() if file is None else file.parent
    if file is not None and file.is_dir():
        raise InputError(f"The output {output!r} is a folder; name a file in it, such as {file / 'image.png'}.")
    if file is not None and file.suffix.lower() not in suffixes:
        raise InputError(f"The output {output!r} must end in {' or '.join(suffixes)}.")
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} to write to; make it first, or choose another with -o.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"Nothing can be written to {folder}; choose another folder with -o.")
    return file


def write_image(image: Image.Image, file: Path | None, prompt: str = "", pnginfo: PngInfo | None = None) -> Path:
    """Save an image whole or not at all, and return its file; None is a new .png here, named after the prompt."""
    folder, suffix = (Path.cwd(), ".png") if file is None else (file.parent, file.suffix.lower())
    unfinished = folder / f".ldm-course-{os.getpid()}{suffix}"
    try:
        image.save(unfinished, quality=95, pnginfo=pnginfo)
        if file is None:
            return next(name for name in _names(folder, prompt) if _rename(unfinished, name))
        os.replace(unfinished, file)
        return file
    finally:
        unfinished.unlink(missing_ok=True)


def _names(folder: Path, prompt: str) -> Iterator[Path]:
    """a-dog.png, a-dog-2.png, a-dog-3.png, ..."""
    words = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "image"
    return (folder / (f"{words}.png" if number == 1 else f"{words}-{number}.png") for number in count(1))


def _rename(file: Path, name: Path) -> bool:
    """Give the file a name that no other file has; False if another has it."""
    try:
        os.link(file, name)  # unlike a check and a rename, safe if two commands run at once
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, such as a USB stick's or Google Drive
        if name.exists():
            return False
        os.replace(file, name)
    return True

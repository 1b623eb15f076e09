"""The exception for a request that cannot be carried out, and the sentence for running out of memory."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """An argument or a file is wrong. The message says in one sentence what is wrong and what to do.

    It is raised before any work is done, except for results that turn out not finite. The command line prints the
    message alone, without a stack trace, so the message is one printable line of ordinary length.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


def one_line(sentence: str) -> str:
    """The sentence without control characters and line breaks, its middle left out if it is very long."""
    if len(sentence) > 1000:
        sentence = f"{sentence[:600]} ... {sentence[-200:]}"
    return "".join(letter if letter.isprintable() else " " for letter in sentence)


def brief(error: BaseException) -> str:
    """The first line of an error's message, fit to stand inside a sentence."""
    first = next(iter(str(error).strip().splitlines()), "")[:200]
    return f"{type(error).__name__}: {first}".replace(". ", "; ").rstrip(".: ")


def warn(message: str) -> None:
    """Issue a UserWarning that points at the line outside this package, torch and contextlib that led to it."""
    inside = (str(Path(__file__).parent), contextlib.__file__, f"{os.sep}torch{os.sep}")
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in inside):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InputError unless the value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}.")


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, in the words of Python, torch or a GPU driver."""
    says_so = isinstance(error, RuntimeError) and re.search("(out of|allocate|enough) memory", str(error))
    return isinstance(error, MemoryError) or bool(says_so)


@contextmanager
def memory_error_in_a_sentence() -> Iterator[None]:
    """If memory runs out inside, release what was computed and raise MemoryError, which says what to reduce."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the last error, and with it all its tensors
        raise MemoryError(
            "The memory ran out; ask for fewer or smaller images, or load the model with dtype=torch.float16."
        ) from None

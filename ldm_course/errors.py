"""The exception for a request that cannot be carried out, and what is said when memory runs out."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What was asked for is wrong or impossible; the message says so in one sentence and names the way out.

    Raised before any work is done, except for numbers that came out as NaN or infinite. The command line prints the
    message alone, without a stack trace. Whatever it quotes from a file or a caller, it stays one line of ordinary
    length, without a terminal's control characters.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


def one_line(sentence: str) -> str:
    """The sentence without line breaks and other control characters, and with its middle left out if it is long."""
    if len(sentence) > 1000:
        sentence = f"{sentence[:600]} ... {sentence[-200:]}"
    return "".join(letter if letter.isprintable() else " " for letter in sentence)


def shown(value: object) -> str:
    """A value as it stands in a sentence: its repr, which Python refuses for whole numbers of over 4300 digits."""
    try:
        return repr(value)
    except ValueError:
        return "a number too long to show"


def brief(error: Exception) -> str:
    """The first line of an error's message, fit to stand inside a sentence."""
    first = next(iter(str(error).strip().splitlines()), "")[:200]
    return f"{type(error).__name__}: {first}".replace(". ", "; ").rstrip(".: ")


def is_memory_error(error: BaseException) -> bool:
    """Whether memory ran out, as Python, torch or a GPU's driver words it."""
    says_so = isinstance(error, RuntimeError) and re.search("(out of|allocate|enough) memory", str(error))
    return isinstance(error, MemoryError) or bool(says_so)


@contextmanager
def memory_error_in_a_sentence() -> Iterator[None]:
    """Raise MemoryError, saying what to reduce, if memory runs out inside; what was computed there is let go."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the last error, and with it all its tensors
        raise MemoryError(
            "The memory ran out; ask for fewer or smaller pictures, or load the model with dtype=torch.float16."
        ) from None

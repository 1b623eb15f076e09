"""From prompts to token ids, with CLIP's tokenizer. `LatentDiffusion.embed` runs the text encoder on them."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm_course.errors import InputError, warn

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str], known_words: Iterable[str] | None = None) -> Tensor:
    """Prompts to token ids, (b, 77), int64: the start token, the text's tokens, the end token, padding.

    A longer text is cut, with a warning that quotes what was cut. A warning also names words that the model was never
    shown, if `known_words` lists those that it was. The tokenizer itself is not changed, so that several threads can
    use it. Raises InputError as `check_prompts`.
    """
    check_prompts(prompts)
    length = tokenizer.model_max_length
    rows = []
    for ids in tokenizer(list(prompts), add_special_tokens=False, verbose=False).input_ids:
        if len(ids) > length - 2:
            cut = str(tokenizer.decode(ids[length - 2 :][:100])).strip()
            warn(f"The prompt is longer than {length} tokens; this was cut: {cut!r}.")
        row = [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id]
        rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
    unknown = unknown_words(prompts, known_words)
    if unknown:
        named = ", ".join(map(repr, unknown[:20])) + (", ..." if unknown[20:] else "")
        warn(f"The model was never shown these words, and can only guess: {named}.")
    return torch.tensor(rows, dtype=torch.int64, device="cpu")


def unknown_words(prompts: Iterable[str], known_words: Iterable[str] | None) -> list[str]:
    """The words of the prompts that are not known, in lower case, without punctuation, each once, in order."""
    if known_words is None:
        return []
    words = (word.strip(string.punctuation).lower() for prompt in prompts for word in prompt.split())
    return [word for word in dict.fromkeys(words) if word and word not in known_words]


def check_prompts(prompts: object, name: str = "prompt") -> None:
    """Raise InputError unless it is a list of one string or more; a string may be empty."""
    if isinstance(prompts, str):
        raise InputError(f"{name} must be a list of strings here, even for one: write [{prompts!r}].")
    if not isinstance(prompts, (list, tuple)):
        raise InputError(f"{name} must be a string or a list of strings, not {type(prompts).__name__}.")
    if not prompts:
        raise InputError(f"{name} is an empty list; give at least one text.")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise InputError(f"{name} must be a string or a list of strings, without {type(prompt).__name__} in it.")
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):  # what Python makes of bytes that are not UTF-8
            raise InputError(f"{name} holds bytes that are not text; type it again, or decode it as UTF-8.")

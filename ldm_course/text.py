"""From words to the vectors that the UNet attends to: CLIP's tokenizer and text encoder, through transformers."""

from __future__ import annotations

import string
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm_course.inputs import check_model, check_prompts

if TYPE_CHECKING:
    from ldm_course.checkpoint import LatentDiffusion


@torch.no_grad()
def encode_prompt(model: LatentDiffusion, prompts: list[str]) -> Tensor:
    """Texts to vectors, (b, 77, d): the text encoder's last layer, one vector per token.

    These vectors are what the UNet's cross-attention reads (Rombach et al. 2022, section 3.3). Every text is padded
    to 77 tokens. A longer one is cut, with a warning that names what was cut. A warning also names words that the
    model cannot know, if it comes with the list of those it does (`model.known_words`).

    Raises:
        InputError: if `model` is none, or `prompts` is not a list of strings. The empty string is one: it is what
            guidance compares with.
    """
    check_model(model)
    check_prompts(prompts)
    tokenizer = model.tokenizer
    room = tokenizer.model_max_length - 2  # besides the start and the end token
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False, verbose=False).input_ids
        if len(ids) > room:
            cut = str(tokenizer.decode(ids[room : room + 100])).strip()
            warnings.warn(f"The prompt is longer than {room + 2} tokens; this was cut: {cut!r}.", stacklevel=3)
    unknown = unknown_words(prompts, model.known_words)
    if unknown:
        named = ", ".join(map(repr, unknown[:20])) + (", ..." if unknown[20:] else "")
        warnings.warn(f"The model was never shown these words, and can only guess: {named}.", stacklevel=3)

    tokens = tokenizer(
        prompts, max_length=tokenizer.model_max_length, padding="max_length", truncation=True, return_tensors="pt"
    )
    with model.at_work(model.text_encoder):
        return model.text_encoder(tokens.input_ids.to(model.device)).last_hidden_state


def unknown_words(prompts: Iterable[str], known_words: Iterable[str] | None) -> list[str]:
    """Words of the prompts, without punctuation and in small letters, that are not known; each once, in order."""
    if known_words is None:
        return []
    words = (word.strip(string.punctuation).lower() for prompt in prompts for word in prompt.split())
    return [word for word in dict.fromkeys(words) if word and word not in known_words]

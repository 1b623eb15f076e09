"""Prompts become the vectors that diffusers' pipeline makes of them, and nothing is lost silently."""

from __future__ import annotations

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import tiny_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import _fill_text_encoder
from ldm_course.model import encode_prompt
from ldm_course.scenes import random_caption, training_scene
from ldm_course.text import tokenize, unknown_words

ODD_TEXTS = [
    "", " ", "  a   dog ", "A DOG with Glasses!!", "dog\n\tcat", "a dog's hat, (red)...", "1234567890 3.14",
    "naïve café", "e\u0301\u0301", "\u202e\u05d0\u05d1", "犬と猫", "👩‍👩‍👧🐶", "\0", "\U0010ffff", "ﬁne ½ Ⅷ ß İ",
    "<|endoftext|> a dog", "a <|startoftext|> dog", "<|startoftext|>", "a" * 74, "a" * 75, "a" * 76, "a dog " * 80,
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_other_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture(scope="module", params=["letters", "shipped"])
def tokenizer(request, tmp_path_factory) -> CLIPTokenizer:
    """One that makes a token of each letter, and the one that ships."""
    if request.param == "letters":
        return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return CLIPTokenizer.from_pretrained(str(bundled_path() / "tokenizer"))


def theirs(tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    """transformers' own padding and cutting, as diffusers asks for it."""
    return tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids


def test_same_ids_as_transformers(tokenizer):
    """Odd Unicode, special tokens in the text, lengths around 77, and 500 captions: alone and in one batch."""
    rng = random.Random(0)
    captions = [random_caption(training_scene(0, i), rng) for i in range(500)]
    letters = ["".join(map(chr, rng.sample(range(0x20, 0xD800), 40))) for _ in range(100)]
    prompts = ODD_TEXTS + captions + letters
    warnings.simplefilter("ignore", UserWarning)  # of what is cut
    ids = tokenize(tokenizer, prompts)
    assert ids.shape == (len(prompts), 77) and ids.dtype == torch.int64 and ids.device.type == "cpu"
    assert torch.equal(ids, theirs(tokenizer, prompts))  # which leaves their padding switched on
    for prompt in ODD_TEXTS:
        assert torch.equal(tokenize(tokenizer, [prompt]), theirs(tokenizer, [prompt])), repr(prompt)


def test_eight_threads_get_the_ids_of_one(tokenizer):
    """transformers' own padding and truncation are settings that all threads share, so we pad by hand."""
    prompts = ["a dog", "a cat with a hat sleeping in a room", "a " * 30, ""]
    expected, together = [tokenize(tokenizer, [prompt]) for prompt in prompts], tokenize(tokenizer, prompts)

    def right(start):
        alone = all(
            torch.equal(tokenize(tokenizer, [prompts[i % 4]]), expected[i % 4]) for i in range(start, start + 100)
        )
        return alone and torch.equal(tokenize(tokenizer, prompts), together)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(right, range(8)))


def test_a_long_prompt_is_cut_with_a_warning(pipe, model):
    """The tiny tokenizer makes a token of every letter: 75 fit, 'and a hat' does not."""
    encode_prompt(model, ["a " * 75])
    prompt = "dog cat a z " * 9 + "dab and a hat"
    with pytest.warns(UserWarning) as caught:
        context = encode_prompt(model, ["a dog", prompt])
    (message,) = [str(warning.message) for warning in caught]
    assert "longer than 77 tokens" in message and message.endswith("this was cut: 'and a hat'.")
    torch.testing.assert_close(context[1:], encode_prompt(model, ["dog cat a z " * 9 + "dab"]))
    torch.testing.assert_close(context[1:], pipe.encode_prompt(prompt, torch.device("cpu"), 1, False)[0])


def test_unknown_words_are_named_once(model):
    knowing = replace(model, known_words=frozenset({"a", "dog", "with", "glasses"}))
    encode_prompt(knowing, ["A dog, with GLASSES!", ""])
    with pytest.warns(UserWarning) as caught:
        encode_prompt(knowing, ["a Zebra with a zebra", "(zebra) on 'mars'..."])
    (message,) = [str(warning.message) for warning in caught]
    assert message.endswith("'zebra', 'on', 'mars'.")
    assert caught[0].filename == __file__, "it points at the call"
    encode_prompt(model, ["a zebra on mars"])  # no list of words, no warning


def test_unknown_words():
    assert unknown_words(["it's a well-lit - dog"], {"a", "dog"}) == ["it's", "well-lit"]


def test_stable_diffusions_own_text_encoder_fits_key_by_key():
    """SD 1.5's CLIP at full size, on the meta device: every key of the hub's file is used, none is missing."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **sizes)
    with torch.device("meta"):
        ours, theirs = CLIPTextModel(config), CLIPTextModel(config).state_dict()
    on_the_hub = {"text_model." + name.removeprefix("text_model."): tensor for name, tensor in theirs.items()}
    on_the_hub["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    _fill_text_encoder(ours, on_the_hub, Path("text_encoder"))
    assert sum(parameter.numel() for parameter in ours.parameters()) == 123_060_480

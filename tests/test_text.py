"""Prompts become the vectors that diffusers' pipeline makes of them, and nothing is lost silently."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch
from helpers import one_sentence

from ldm_course import checkpoint
from ldm_course.text import encode_prompt, unknown_words


@pytest.fixture(autouse=True)
def no_other_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_same_vectors_as_diffusers(pipe, model):
    prompts = ["a dog with glasses", "", "a cat, running!"]
    reference, negative = pipe.encode_prompt(prompts, torch.device("cpu"), 1, True, ["ugly"] * 3)
    context = encode_prompt(model, prompts)
    assert context.shape == (3, 77, 24) and torch.equal(context, reference)
    assert torch.equal(encode_prompt(model, ["ugly"]), negative[:1])


def test_texts_do_not_touch(model):
    both = encode_prompt(model, ["a dog", "a cat"])
    assert not torch.equal(both[0], both[1])
    torch.testing.assert_close(both[1:], encode_prompt(model, ["a cat"]))


def test_75_tokens_fit(model):
    encode_prompt(model, ["a " * 75])


def test_a_long_prompt_is_cut_with_a_warning(pipe, model):
    """The tiny tokenizer makes a token of every letter: 75 fit, 'and a hat' does not."""
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
    assert unknown_words(["anything"], None) == []


def test_nothing_is_changed(model):
    prompts = ["a dog", "a cat"]
    assert torch.equal(encode_prompt(model, prompts), encode_prompt(model, prompts)) and prompts == ["a dog", "a cat"]
    assert not encode_prompt(model, prompts).requires_grad


def test_bad_prompts(model):
    with one_sentence("prompt", "write ['a dog']"):
        encode_prompt(model, "a dog")
    with one_sentence("prompt", "without int"):
        encode_prompt(model, ["a dog", 3])
    with one_sentence("prompt", "empty list"):
        encode_prompt(model, [])


def test_stable_diffusions_own_text_encoder_fits_key_by_key(tmp_path, monkeypatch):
    """SD 1.5's CLIP at full size, on the meta device: every key of the hub's file is used, none is missing."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **sizes)
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"model_type": "clip_text_model"}))
    with torch.device("meta"):
        theirs = CLIPTextModel(config).state_dict()
    on_the_hub = {"text_model." + name.removeprefix("text_model."): tensor for name, tensor in theirs.items()}
    on_the_hub["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    monkeypatch.setattr(checkpoint, "read_weights", lambda folder, half: (on_the_hub, folder))
    ours = checkpoint._read_text_encoder(folder, half=False)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 123_060_480

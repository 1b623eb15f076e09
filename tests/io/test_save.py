"""`save`: whole or not at all, and everything in it is found by `load`, diffusers and transformers."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from helpers import one_sentence, pixel_difference, tiny_pipeline
from model_folders import TINY, UNET_WEIGHTS, contents, our_image, their_image
from safetensors.torch import load_file
from tokenizers import normalizers
from transformers import AddedToken, CLIPTextModel, CLIPTokenizer

from ldm_course.io import save as module
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.io.save import save
from ldm_course.model import LatentDiffusion
from ldm_course.schedule import NoiseSchedule

pytestmark = pytest.mark.filterwarnings("ignore:The model asks for")


# ---- what travels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_diffusers_samples_our_saved_models_image(model: LatentDiffusion, tmp_path: Path, dtype, caplog):
    folder = tmp_path / "model"
    save(model, folder, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # transformers' own, of tokenizers 0.22
        again = load(folder)
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    assert not [r.message for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert pixel_difference(our_image(again), their_image(pipe)) <= 1
    if dtype == torch.float32:
        assert pixel_difference(our_image(again), our_image(model)) == 0
    for path in folder.rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values()} == {dtype}
        assert path.stat().st_mode & 0o777 == (folder / "model_index.json").stat().st_mode & 0o777


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_models_dtype_is_kept(tmp_path: Path, dtype):
    model = load(TINY, dtype=dtype)
    assert model.dtype == dtype == model.text_encoder.dtype
    save(model, tmp_path / "model")
    for part in ("vae", "unet"):
        tensors = load_file(tmp_path / f"model/{part}/diffusion_pytorch_model.safetensors")
        assert all(torch.equal(tensors[name], ours) for name, ours in getattr(model, part).state_dict().items())
        assert {tensor.dtype for tensor in tensors.values()} == {dtype}


def test_the_shipped_model_is_what_save_writes(tmp_path: Path):
    save(load(), tmp_path / "model", torch.float16)
    written, shipped = contents(tmp_path / "model"), contents(bundled_path())
    differing = {name for name in written if written[name] != shipped[name]}
    assert differing <= {"tokenizer/vocab.json"}  # which transformers 4 lays out in another way
    ours, theirs = (
        json.loads((f / "tokenizer/vocab.json").read_text()) for f in (tmp_path / "model", bundled_path())
    )
    assert ours == theirs


def test_schedule_configs_and_known_words_travel(model: LatentDiffusion, tmp_path: Path):
    schedule = NoiseSchedule(900, 1e-4, 0.02, "linear", "v_prediction", "trailing", 0, True)
    words = frozenset({"dog", "cat", "naïve"})
    save(replace(model, schedule=schedule, known_words=words), tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.schedule == schedule and again.known_words == words
    assert again.vae.config == model.vae.config and again.unet.config == model.unet.config
    theirs = DDIMScheduler.from_pretrained(tmp_path / "model" / "scheduler").config
    assert asdict(schedule).items() <= dict(theirs).items()


def test_diffusers_finds_every_tensor_and_no_other(saved: Path):
    for cls, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder")):
        info = cls.from_pretrained(saved / part, output_loading_info=True)[1]
        assert not any(info.values()), (part, info)


def test_the_text_encoder_is_saved_for_all_versions_of_transformers(model: LatentDiffusion, saved: Path):
    """Version 5 leaves `text_model.` out, and 4.57 then draws random weights; and 5 obeys the config's dtype."""
    assert all(name.startswith("text_model.") for name in load_file(saved / "text_encoder/model.safetensors"))
    config = json.loads((saved / "text_encoder/config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["eos_token_id"] == model.tokenizer.eos_token_id  # or every text would be pooled at its start token
    files = {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"}
    assert files <= {path.name for path in (saved / "tokenizer").iterdir()}


@pytest.mark.parametrize(
    "tokens, text",
    [
        (["<cat-toy>"], "a <cat-toy>, a<cat-toy>"),  # as textual inversion does
        ([AddedToken("<two words>", lstrip=True, rstrip=True, normalized=False)], "a  <two words>  b"),
        ([AddedToken("<S>", special=True)], "<S><s>"),
        ([AddedToken("dog", single_word=True)], "dog dogs"),
        (["<one>", "<two>", "<three>"], "<three><two><one>"),
    ],
)
def test_added_tokens_travel(tmp_path: Path, tokens, text):
    pipe = tiny_pipeline(tmp_path / "files")
    pipe.tokenizer.add_tokens(tokens)
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    pipe.save_pretrained(tmp_path / "theirs")
    theirs = load(tmp_path / "theirs")
    save(theirs, tmp_path / "ours")
    save(load(tmp_path / "ours"), tmp_path / "again")

    expected = pipe.tokenizer(text).input_ids
    assert set(expected) & {pipe.tokenizer.convert_tokens_to_ids(str(token)) for token in tokens}
    for folder in ("ours", "again"):
        ours = load(tmp_path / folder)
        assert torch.equal(ours.embed([text]), theirs.embed([text]))
        for tokenizer in (
            ours.tokenizer,
            CLIPTokenizer.from_pretrained(tmp_path / folder / "tokenizer"),
            StableDiffusionPipeline.from_pretrained(tmp_path / folder).tokenizer,
        ):
            assert tokenizer(text).input_ids == expected
            assert str(tokenizer.added_tokens_decoder) == str(pipe.tokenizer.added_tokens_decoder)


def test_a_tokenizer_that_clips_files_cannot_hold_is_refused(tmp_path: Path):
    model = load(TINY)
    if not hasattr(model.tokenizer, "backend_tokenizer"):
        pytest.skip("transformers 4's tokenizer has no such setting")
    model.tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # upper case stays
    with one_sentence("tokenizer"):
        save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# ---- whole or not at all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["writing", "moving"])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_save_that_fails_changes_nothing(saved, model, tmp_path: Path, monkeypatch, when, is_new):
    target = tmp_path / "model"
    if not is_new:
        shutil.copytree(saved, target)
    before, rename = contents(tmp_path), Path.rename

    def fails(self, *others, **_):
        if when == "writing" or ".new" in self.name:
            raise KeyboardInterrupt
        return rename(self, *others)

    monkeypatch.setattr(*((module, "save_file") if when == "writing" else (Path, "rename")), fails)
    with pytest.raises(KeyboardInterrupt):
        save(model, target)
    assert contents(tmp_path) == before and list(tmp_path.iterdir()) == [target] * (not is_new)


def test_saving_again_replaces_the_model_and_keeps_the_rest(saved: Path, model: LatentDiffusion, tmp_path: Path):
    target = Path(shutil.copytree(saved, tmp_path / "model"))
    (target / "README.md").write_text("a model card")
    (target / "judge").mkdir()
    (target / "judge" / "weights").write_text("some")
    shutil.copy(target / UNET_WEIGHTS, target / "unet/diffusion_pytorch_model.fp16.safetensors")
    save(replace(load(target), known_words=frozenset({"dog"})), target)
    assert (target / "README.md").read_text() == "a model card" and (target / "judge" / "weights").exists()
    assert not (target / "unet/diffusion_pytorch_model.fp16.safetensors").exists()  # `load` would prefer the old one
    assert load(target).known_words == {"dog"}
    assert list(tmp_path.iterdir()) == [target]


# ---- refusals --------------------------------------------------------------------------------------------------


def test_saving_is_refused_where_it_would_do_harm(model: LatentDiffusion, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("hard work")
    for target, word in (("thesis", "thesis"), ("thesis/chapter1.txt", "chapter1.txt"), ("nowhere/model", "nowhere")):
        with one_sentence(word):
            save(model, tmp_path / target)
    with one_sentence("torch.int8"):
        save(model, tmp_path / "model", torch.int8)
    with one_sentence("UNet"):
        save(replace(model, unet=lambda x, t, context: x), tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter1.txt"]
    (tmp_path / "empty").mkdir()
    save(model, tmp_path / "empty")


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_half_precision_cannot_hold_are_not_saved(saved: Path, tmp_path: Path, value):
    model = load(saved)
    model.unet.conv_out.bias.data[0] = value
    with one_sentence("conv_out.bias", "unet", "float16"):
        save(model, tmp_path / "model", torch.float16)
    assert list(tmp_path.iterdir()) == []

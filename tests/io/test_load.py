"""`load`: what diffusers computes, on the device and in the dtype that were asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from helpers import (
    default_dtype,
    needs_a_compiler,
    noise,
    one_sentence,
    our_unet,
    pixel_difference,
    relative_error,
    tiny_unet,
)
from model_folders import TINY, UNET_WEIGHTS, contents, edit, our_image
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_course.io.load import COMPILED_SIZES, compile_unet, load
from ldm_course.schedule import NoiseSchedule

pytestmark = pytest.mark.filterwarnings("ignore:The model asks for")


def test_a_model_is_ready_to_run_and_its_folder_untouched():
    before = contents(TINY)
    model = load(TINY)
    for module in (model.vae, model.unet, model.text_encoder):
        assert not module.training
        for tensor in [*module.parameters(), *module.buffers()]:
            assert tensor.device.type == "cpu" and not tensor.requires_grad
            assert tensor.dtype == torch.float32 or not tensor.is_floating_point()
    assert model.dtype == torch.float32
    assert model.schedule == NoiseSchedule()  # the file holds Stable Diffusion 1.5's, our defaults
    assert model.vae.config.scaling_factor == 0.18215  # the file holds none
    assert model.tokenizer.model_max_length == 77
    assert model.known_words is None
    our_image(model)
    assert contents(TINY) == before


def test_the_hubs_folder_computes_what_diffusers_computes():
    model = load(TINY)
    texts = {"text": ["a dog with glasses", ""], "padding": "max_length", "return_tensors": "pt"}
    tokens = model.tokenizer(**texts).input_ids
    assert torch.equal(tokens, CLIPTokenizer.from_pretrained(TINY / "tokenizer")(**texts).input_ids)
    with torch.no_grad():
        context = model.text_encoder(tokens).last_hidden_state
        theirs = CLIPTextModel.from_pretrained(TINY / "text_encoder", dtype=torch.float32)
        assert relative_error(context, theirs(tokens).last_hidden_state) <= 1e-5

        unet = UNet2DConditionModel.from_pretrained(TINY / "unet", torch_dtype=torch.float32)
        x, t = noise(2, 4, 8, 8), torch.tensor([7, 981])
        assert relative_error(model.unet(x, t, context), unet(x, t, context).sample) <= 1e-5

        vae = AutoencoderKL.from_pretrained(TINY / "vae", torch_dtype=torch.float32)
        image = noise(1, 3, 32, 32)
        assert relative_error(model.vae.encode(image).mean, vae.encode(image).latent_dist.mean) <= 1e-5
        assert relative_error(model.vae.decode(x), vae.decode(x).sample) <= 1e-5


def test_a_tokenizer_that_states_no_length_is_cut_at_the_encoders(folder: Path):
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=...)
    assert load(folder).tokenizer.model_max_length == 77


# ---- dtype and device ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16, "meta"])
def test_the_default_dtype_and_device_change_nothing(default: torch.dtype | str):
    expected = load(TINY)
    with torch.device(default) if isinstance(default, str) else default_dtype(default):
        model = load(TINY)
    for part in ("vae", "unet", "text_encoder"):
        ours, theirs = ([*getattr(m, part).parameters(), *getattr(m, part).buffers()] for m in (model, expected))
        assert all(a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in zip(ours, theirs))
    assert torch.equal(model.embed(["a dog"]), expected.embed(["a dog"]))


@pytest.mark.parametrize("cuda, mps, chosen", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_a_gpu_is_taken_where_there_is_one(cuda, mps, chosen, monkeypatch, capsys):
    """Here torch has none: each tensor that would go there stays on the CPU."""
    ones, to = torch.ones, nn.Module.to
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "ones", lambda *a, device, **k: asked.append(device) or ones(*a, device="cpu", **k))
    monkeypatch.setattr(nn.Module, "to", lambda self, device, dtype: to(self, "cpu", dtype))
    load(TINY)
    assert asked == [chosen]
    said = capsys.readouterr()
    assert said.out == "" and (f'"{chosen}"' in said.err) == (chosen != "cpu")

    load(TINY, device="cpu")
    assert asked == [chosen, "cpu"] and capsys.readouterr().err == ""


# ---- compile ---------------------------------------------------------------------------------------------------


def test_settings_for_compiling_hold_only_inside(monkeypatch):
    """`freezing` would bake in the weights of other models in the process; nor do our sizes change their limit."""
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    before = (inductor.freezing, dynamo.recompile_limit)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: lambda: (inductor.freezing, dynamo.recompile_limit))
    unet = our_unet(tiny_unet())
    compile_unet(unet)
    assert unet() == (True, COMPILED_SIZES)
    assert (inductor.freezing, dynamo.recompile_limit) == before


@pytest.mark.slow
@needs_a_compiler()
def test_a_compiled_model_samples_the_same_image():
    assert pixel_difference(our_image(load(TINY, compile=True)), our_image(load(TINY))) <= 2


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="which compiler torch takes is another matter there")
def test_without_a_compiler_the_first_image_says_so(tmp_path: Path):
    """CXX names the compiler that torch takes; in a process of its own, because torch reads it once."""
    code = f"import ldm_course as ldm; ldm.txt2img(ldm.load({str(TINY)!r}, compile=True), 'a dog', seed=0)"
    settings = {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError" in last and "/nowhere/c++" in last and "compile=True" in last


# ---- refusals --------------------------------------------------------------------------------------------------

NO_FOLDERS = ["./nowhere", "~/nowhere/at/all", "~nobody-here/model", "nowhere", "a/b/c", "", " ", Path("a/b"),
              TINY / UNET_WEIGHTS, "a\0b", Path("a\0b"), "\ud800/x", "x" * 5000]  # fmt: skip


@pytest.mark.parametrize(
    "arguments, word",
    [
        *(({"source": source}, "There is no folder") for source in NO_FOLDERS),
        ({"source": 3}, "folder"),
        ({"source": ["a"]}, "folder"),
        ({"revision": "main"}, "revision"),
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": torch.int8}, "dtype"),
        *(({"device": each}, repr(each)) for each in ("meta", "cuda:63", "gpu", "xla", "", 63, torch.device("meta"))),
    ],
)
def test_arguments_that_are_refused(arguments, word):
    with one_sentence(word):
        load(**{"source": TINY} | arguments)

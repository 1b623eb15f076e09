"""LoRA files: what we write, diffusers reads, and the other way round; what is no LoRA gets one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import noise, one_sentence, pixel_difference, relative_error, tiny_pipeline
from model_folders import our_image, their_image
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

import ldm_course as ldm
from ldm_course.io import lora as module
from ldm_course.io.lora import load_lora, read_lora, save_lora
from ldm_course.lora import ATTENTION, add_lora, lora_layers, lora_parameters, remove_lora
from ldm_course.model import LatentDiffusion
from ldm_course.unet import UNet, UNetConfig

INPUTS = noise(2, 4, 8, 8), torch.tensor([10, 900]), noise(2, 77, 24, seed=1)


def taught(model: LatentDiffusion, **how) -> LatentDiffusion:
    """The model with a LoRA that has an effect: no matrix is 0."""
    unet = add_lora(model.unet, **how)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in lora_parameters(unet):
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return replace(model, unet=unet.requires_grad_(False))


@pytest.fixture(scope="module")
def file(model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA for the tests' model, saved by us."""
    path = tmp_path_factory.mktemp("lora") / "ours.safetensors"
    save_lora(taught(model, rank=3, lora_alpha=2), path)
    return path


def written_by_diffusers(folder: Path, **config) -> tuple[StableDiffusionPipeline, Path]:
    """A pipeline with a random LoRA, and the file into which diffusers wrote it, its configuration included."""
    pipe = tiny_pipeline(folder)
    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(init_lora_weights=False, **config))
    metadata = pipe.unet.peft_config["default"].to_dict()
    metadata = {key: sorted(value) if isinstance(value, set) else value for key, value in metadata.items()}
    StableDiffusionPipeline.save_lora_weights(
        folder, get_peft_model_state_dict(pipe.unet), unet_lora_adapter_metadata=metadata
    )
    return pipe, folder / "pytorch_lora_weights.safetensors"


# ---- both ways -------------------------------------------------------------------------------------------------


def test_what_we_save_we_load(model, file):
    there = taught(model, rank=3, lora_alpha=2)
    with torch.no_grad():
        expected = there.unet(*INPUTS)
        for merge in (True, False):
            again = load_lora(model, file, merge=merge)
            assert relative_error(again.unet(*INPUTS), expected) <= 1e-5
            assert bool(lora_layers(again.unet)) != merge
        assert relative_error(load_lora(model, file, strength=0).unet(*INPUTS), model.unet(*INPUTS)) <= 1e-6
        double = load_lora(model, file, strength=2.0, merge=False)
        assert {layer.scale for layer in lora_layers(double.unet).values()} == {2.0}
        assert torch.equal(remove_lora(double.unet)(*INPUTS), model.unet(*INPUTS))


def test_diffusers_loads_our_file(pipe, model, file, tmp_path):
    theirs = tiny_pipeline(tmp_path)
    theirs.load_lora_weights(str(file))
    with torch.no_grad():
        expected = theirs.unet(*INPUTS).sample
        assert relative_error(model.unet(*INPUTS), expected) > 0.01
        assert relative_error(load_lora(model, file).unet(*INPUTS), expected) <= 1e-5
    assert pixel_difference(our_image(load_lora(model, file)), their_image(theirs)) <= 1


@pytest.mark.parametrize(
    "config",
    [
        {"r": 3, "lora_alpha": 5, "target_modules": list(ATTENTION)},
        {"r": 2, "target_modules": ["to_k", "to_v"]},
        {"r": 4, "lora_alpha": 4, "rank_pattern": {"to_q": 2}, "alpha_pattern": {"attn2.to_v": 3},
         "target_modules": ["to_q", "to_v", "ff.net.0.proj"]},
    ],
)  # fmt: skip
def test_we_load_a_file_by_diffusers(model, tmp_path, config):
    pipe, file = written_by_diffusers(tmp_path, **config)
    with torch.no_grad():
        expected = pipe.unet(*INPUTS).sample
        ours = load_lora(model, file, merge=False)
        assert relative_error(model.unet(*INPUTS), expected) > 0.01
        assert relative_error(ours.unet(*INPUTS), expected) <= 1e-5

        save_lora(ours, tmp_path / "again.safetensors")
        pipe.delete_adapters("default")
        pipe.load_lora_weights(str(tmp_path / "again.safetensors"))
        assert relative_error(pipe.unet(*INPUTS).sample, expected) <= 1e-5


def test_we_load_files_without_prefix_or_with_diffusers_older_names(model, file, tmp_path):
    tensors = load_file(file)
    older = {"lora_A": "lora.down", "lora_B": "lora.up"}
    with torch.no_grad():
        expected = load_lora(model, file).unet(*INPUTS)
        for number, renamed in enumerate(
            (
                {key.removeprefix("unet."): value for key, value in tensors.items()},
                {key.replace(half, older[half]): v for key, v in tensors.items() for half in older if half in key},
            )
        ):
            save_file(renamed, tmp_path / f"{number}.safetensors")
            assert torch.equal(load_lora(model, tmp_path / f"{number}.safetensors").unet(*INPUTS), expected)


@pytest.mark.slow
def test_diffusers_shipped_model_and_our_file_agree(tmp_path):
    model = ldm.load(device="cpu")
    file = tmp_path / "lora.safetensors"
    save_lora(taught(model, rank=4, lora_alpha=1), file)
    theirs = StableDiffusionPipeline.from_pretrained(ldm.bundled_path(), local_files_only=True)
    theirs.load_lora_weights(str(file))
    x, t, context = noise(1, 4, 16, 16), torch.tensor([500]), model.embed(["a dog"])
    with torch.no_grad():
        expected = theirs.unet(x, t, context).sample
        assert relative_error(model.unet(x, t, context), expected) > 0.01
        assert relative_error(load_lora(model, file).unet(x, t, context), expected) <= 1e-5


def test_the_keys_and_shapes_are_those_of_stable_diffusion_s_loras():
    with torch.device("meta"):
        unet = add_lora(UNet(UNetConfig()), rank=4)
    shapes = {
        f"unet.{name}.{half}.weight": tuple(getattr(layer, half).weight.shape)
        for name, layer in lora_layers(unet).items()
        for half in ("lora_A", "lora_B")
    }
    assert len(shapes) == 256
    block = "unet.down_blocks.1.attentions.0.transformer_blocks.0"
    assert shapes[f"{block}.attn2.to_k.lora_A.weight"] == (4, 768)
    assert shapes[f"{block}.attn2.to_k.lora_B.weight"] == (640, 4)
    assert shapes[f"{block}.attn1.to_out.0.lora_B.weight"] == (640, 4)


def test_two_files_add_up(model, file, tmp_path):
    second = tmp_path / "second.safetensors"
    save_lora(taught(model, rank=1, target_modules=("attn2.to_v",)), second)
    one_way = load_lora(load_lora(model, file), second)
    other_way = load_lora(load_lora(model, second, merge=False), file, merge=False)
    with torch.no_grad():
        assert relative_error(one_way.unet(*INPUTS), other_way.unet(*INPUTS)) <= 1e-5
    with one_sentence("two LoRAs"):
        save_lora(other_way, tmp_path / "third.safetensors")


def test_the_merged_model_is_a_model_like_any_other(model, file, tmp_path):
    merged = load_lora(model, file)
    ldm.save(merged, tmp_path / "model")
    assert pixel_difference(our_image(ldm.load(tmp_path / "model", device="cpu")), our_image(merged)) <= 1


# ---- what is no LoRA for this model ----------------------------------------------------------------------------


@pytest.fixture
def changed(file, tmp_path):
    """Our file with some of its tensors replaced, and a configuration."""

    def change(tensors: dict, **settings) -> Path:
        path = tmp_path / "changed.safetensors"
        kept = {key: value for key, value in (load_file(file) | tensors).items() if value is not None}
        save_file(kept, path, metadata={"lora_adapter_metadata": json.dumps(settings)})
        return path

    return change


NAN, ZEROS = torch.full((3, 2), torch.nan), torch.zeros(3, 2)


@pytest.mark.parametrize(
    "tensors, settings, words",
    [
        ({"conv.weight": torch.zeros(1)}, {}, "conv.weight"),
        ({"conv_in.lora_A.weight": torch.zeros(2, 4, 3, 3)}, {}, "conv_in"),
        ({"unet.x.lora_A.weight": NAN}, {}, "not finite"),
        ({"unet.x.lora_A.weight": ZEROS.int()}, {}, "unet.x"),
        ({"unet.x.lora_A.weight": ZEROS}, {}, "pair"),
        ({"unet.x.lora_A.weight": ZEROS, "unet.x.lora_B.weight": ZEROS.clone()}, {}, "pair"),
        ({"text_encoder.x.lora_A.weight": ZEROS}, {}, "text encoder"),
        ({}, {"unet.use_dora": True}, "use_dora"),
        ({}, {"use_rslora": True}, "use_rslora"),
    ],
)
def test_a_file_that_is_no_such_lora_gets_a_sentence(changed, tensors, settings, words):
    with one_sentence(words):
        read_lora(changed(tensors, **settings))


def test_a_file_that_cannot_be_read_gets_a_sentence(file, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:500])
    (tmp_path / "lora.bin").write_bytes(b"")
    save_file({}, tmp_path / "empty.safetensors")
    unreadable = {
        "cut.safetensors": "broken",
        "lora.bin": ".safetensors",
        ".": "no file",
        "empty.safetensors": "no tensors",
    }
    for name, words in unreadable.items():
        with one_sentence(words):
            read_lora(tmp_path / name)


def test_a_lora_for_another_model_gets_a_sentence(model, changed):
    a, b = torch.zeros(3, 16), torch.zeros(16, 3)
    with one_sentence("another model", "no_such_block.to_q"):
        load_lora(model, changed({"no_such_block.to_q.lora_A.weight": a, "no_such_block.to_q.lora_B.weight": b}))
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    with one_sentence("another model", name, "reads 16 and writes 16", "reads 32 and writes 32"):
        load_lora(model, changed({f"unet.{name}.lora_A.weight": a, f"unet.{name}.lora_B.weight": b}))


def test_other_mistakes_get_a_sentence(model, file, tmp_path):
    for strength in (float("nan"), "1", True, None):
        with one_sentence("strength", repr(strength)):
            load_lora(model, file, strength=strength)
    with one_sentence("nothing to save"):
        save_lora(model, tmp_path / "x.safetensors")
    there = taught(model, rank=1)
    for path in (tmp_path / "x.bin", tmp_path / "none" / "x.safetensors"):
        with one_sentence(path.name):
            save_lora(there, path)
    broken = taught(model, rank=1)
    lora_parameters(broken.unet)[0].data[0, 0] = torch.inf
    with one_sentence("not finite"):
        save_lora(broken, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir()), "nothing half-written is left"


def test_a_compiled_model_stays_compiled(model, file, monkeypatch):
    compiled = []
    monkeypatch.setattr(module, "compile_unet", compiled.append)
    load_lora(model, file)
    assert not compiled
    unet = remove_lora(add_lora(model.unet))  # a copy
    unet._compiled_call_impl = unet.forward
    ours = load_lora(replace(model, unet=unet), file)
    assert compiled == [ours.unet] and ours.unet._compiled_call_impl is None, "the new one, not the old one's code"
    with one_sentence("own UNet"):
        load_lora(replace(model, unet=lambda *inputs: inputs[0]), file)

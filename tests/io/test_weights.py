"""Weight files: safetensors in one file or in shards, under all their names, and exactly the module's tensors."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import one_sentence, pixel_difference
from model_folders import UNET_WEIGHTS, edit, edit_weights, our_image, their_image
from safetensors.torch import load_file, save_file

from ldm_course.errors import InputError
from ldm_course.io.load import load
from ldm_course.io.weights import weight_patterns

pytestmark = pytest.mark.filterwarnings("ignore:The model asks for")
STEM = "diffusion_pytorch_model"


# ---- names of files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, value", [(torch.float16, 16.0), (torch.float32, 32.0), (torch.bfloat16, 32.0)])
def test_half_precision_takes_the_fp16_files(folder: Path, dtype, value):
    shutil.copy(folder / UNET_WEIGHTS, folder / f"unet/{STEM}.fp16.safetensors")
    edit_weights(folder / UNET_WEIGHTS, {"conv_out.bias": torch.full([4], 32.0)})
    edit_weights(folder / f"unet/{STEM}.fp16.safetensors", {"conv_out.bias": torch.full([4], 16.0)})
    assert load(folder, dtype=dtype).unet.conv_out.bias[0] == value


@pytest.mark.parametrize("shards", ["whole", "sharded"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_we_sample_diffusers_saved_pipelines_image(pipe: StableDiffusionPipeline, tmp_path: Path, shards, variant):
    size = {"max_shard_size": "30KB"} if shards == "sharded" else {}
    pipe.save_pretrained(tmp_path, variant=variant, **size)
    shutil.rmtree(tmp_path / "text_encoder")  # the pipeline's own method does not shard it
    pipe.text_encoder.save_pretrained(tmp_path / "text_encoder", variant=variant, **size)
    for part in ("unet", "vae", "text_encoder"):
        assert (len(list((tmp_path / part).glob("*.safetensors"))) > 1) == (shards == "sharded")
    assert pixel_difference(our_image(load(str(tmp_path))), their_image(pipe)) <= 1
    load(tmp_path, dtype=torch.float16)


@pytest.mark.parametrize(
    "index, shard",
    [
        (f"{STEM}.safetensors.index.json", f"{STEM}-{{}}-of-00002.safetensors"),
        (f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-{{}}-of-00002.safetensors"),
        (f"{STEM}.safetensors.fp16.index.json", f"{STEM}-{{}}-of-00002.fp16.safetensors"),
        (f"{STEM}.fp16.safetensors.index.json", f"{STEM}.fp16-{{}}-of-00002.safetensors"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_shards_under_every_name_of_their_index(folder: Path, index, shard, dtype):
    """They load from a folder, and are among what is fetched from the hub."""
    expected = load(folder, dtype=dtype).unet.state_dict()
    tensors = load_file(folder / UNET_WEIGHTS)
    (folder / UNET_WEIGHTS).unlink()
    names = {name: shard.format(f"0000{1 + i % 2}") for i, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in tensors if names[name] == file}, folder / "unet" / file)
    (folder / "unet" / index).write_text(json.dumps({"weight_map": names}))
    patterns = weight_patterns("unet", ".fp16" if "fp16" in index else "")
    assert all(any(fnmatch(f"unet/{file}", each) for each in patterns) for file in (index, *names.values()))
    unet = load(folder, dtype=dtype).unet
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize(
    "name, word",
    [
        *((name, "not opened") for name in ("../x.safetensors", "/dev/zero", "..\\x.safetensors", "C:x", "a/\nb")),
        *((name, "missing") for name in ("..", ".", "", "a\0b", "y" * 300, "part-2.safetensors")),
    ],
)
def test_an_index_names_only_files_beside_it(folder: Path, name: str, word: str):
    shutil.copy(folder / UNET_WEIGHTS, folder / "x.safetensors")
    names = dict.fromkeys(load_file(folder / UNET_WEIGHTS), "part-1.safetensors")
    (folder / UNET_WEIGHTS).rename(folder / "unet" / "part-1.safetensors")
    index = folder / f"{UNET_WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    load(folder)
    edit(index, weight_map=names | {"conv_out.bias": name})
    with one_sentence(word):
        load(folder)


def test_the_vaes_old_names_load(folder: Path):
    """And the attention as a 1x1 convolution, and today's names."""
    expected = load(folder).vae.state_dict()
    path = folder / f"vae/{STEM}.safetensors"
    tensors = load_file(path)
    old = [name for name in tensors if ".query." in name or ".proj_attn." in name]
    assert len(old) == 8
    for files in ({k: v[:, :, None, None] if k in old and v.dim() == 2 else v for k, v in tensors.items()}, expected):
        save_file(files, path)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load(folder).vae.state_dict().items())


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part, changes, words",
    [
        ("unet", {"conv_out.bias": ..., "a": torch.ones(1)}, ["Missing", "conv_out.bias", "Unexpected", '"a"']),
        ("unet", {"conv_3.bias": torch.ones(1)}, ["Unexpected", "conv_3.bias"]),
        ("unet", {"conv_out.bias": torch.ones(3)}, ["size mismatch", "conv_out.bias", "[3]", "[4]"]),
        ("unet", {"conv_out.bias": torch.ones(4, dtype=torch.int8)}, ["conv_out.bias", "floating point"]),
        ("vae", {"decoder.conv_out.bias": ...}, ["Missing", "conv_out.bias"]),
        ("text_encoder", {"text_model.final_layer_norm.bias": ...}, ["Missing", "final_layer_norm.bias"]),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, part, changes, words):
    edit_weights(next((folder / part).glob("*.safetensors")), changes)
    with one_sentence(str(folder / part), *words):
        load(folder)


@pytest.mark.parametrize("names", [["a\nb. C"], ["\x1b[31mred"], ["x" * 100_000], [""], [str(i) for i in range(999)]])
def test_odd_names_of_tensors_and_many_make_one_line(folder: Path, names):
    edit_weights(folder / UNET_WEIGHTS, {"conv_out.bias": ...} | dict.fromkeys(names, torch.ones(1)))
    with pytest.raises(InputError, match="conv_out.bias") as caught:
        load(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 1000

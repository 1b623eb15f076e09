"""Model folders that are damaged, made wrongly, or made to do harm: they load and generate, or are refused.

hypothesis makes the damage up. `make test` tries a few, always the same; `make test-long` searches.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from helpers import one_sentence, or_one_sentence
from hypothesis import given
from hypothesis import strategies as st
from model_folders import TINY
from model_folders import UNET_WEIGHTS as UNET
from PIL import Image
from safetensors.torch import load_file, save_file

from ldm_course.errors import InputError
from ldm_course.io.load import load
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img

WEIGHTS = (UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
CONFIGS = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json",
           "tokenizer/special_tokens_map.json")  # fmt: skip
FILES = sorted(str(path.relative_to(TINY)) for path in TINY.rglob("*") if path.is_file())
pytestmark = pytest.mark.filterwarnings("ignore")

# Those that we read ourselves; what transformers makes of wrong values in its own files is its affair.
OURS = ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
KEYS = [(name, key) for name in OURS for key in json.loads((TINY / name).read_text())]
KEYS += [("unet/config.json", "norm_eps"), ("vae/config.json", "scaling_factor")]  # which these files do not have
VALUES = [-1, 0, 1, 2, 1.5, math.nan, math.inf, True, False, None, "", "x", "é\0\n", [], {}, [8], [8, 8], [None],
          [[1]], {"a": 1}, ["a", "B"]]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def generated(folder: Path) -> Image.Image | None:
    """An image by the folder's model; None if loading it, or sampling, ended in one sentence."""
    model = or_one_sentence(lambda: load(folder))
    if model is None:
        return None
    image = or_one_sentence(lambda: txt2img(model, "a dog", height=8, width=8, num_inference_steps=1, seed=0))
    assert image is None or (image.mode, image.size) == ("RGB", (8, 8))
    return image


def with_file(name: str, content: bytes) -> Image.Image | None:
    """What is generated from a copy of the folder in which one file holds these bytes."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(shutil.copytree(TINY, Path(parent) / "model"))
        (folder / name).write_bytes(content)
        return generated(folder)


def header(content: bytes) -> tuple[dict, bytes]:
    """A safetensors file's JSON and its data."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(tensors: dict, data: bytes) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + data


# ---- damage ----------------------------------------------------------------------------------------------------


@given(name=st.sampled_from(WEIGHTS), where=st.floats(0, 1, exclude_max=True))
def test_weights_cut_short_anywhere_are_refused(name, where):
    content = (TINY / name).read_bytes()
    assert with_file(name, content[: int(where * len(content))]) is None


@given(
    name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), early=st.booleans()
)
def test_a_flipped_bit(name, where, bit, early):
    """In the data of weights it cannot be seen: the model loads, and generates another image, or says NaN."""
    content = bytearray((TINY / name).read_bytes())
    content[int(where * min(len(content), 3000 if early else len(content)))] ^= 1 << bit
    with_file(name, bytes(content))


@given(name=st.sampled_from([name for name in FILES if name not in WEIGHTS]), where=st.floats(0, 1, exclude_max=True))
def test_texts_cut_short_anywhere(name, where):
    content = (TINY / name).read_bytes()
    with_file(name, content[: int(where * len(content))])


NO_JSON = ['{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}", b"null", b"NaN", b"3", b"\0" * 50,
           b'{"a":' + b"9" * 6000 + b"}", b"\x80\x04K\x03."]  # fmt: skip


@pytest.mark.parametrize("content", NO_JSON, ids=lambda content: repr(content[:12]))
@pytest.mark.parametrize("name", [*CONFIGS[:5], "tokenizer/vocab.json"])
def test_json_that_is_none(name, content):
    """Not in UTF-8, no object, a number too long."""
    assert with_file(name, content) is None


@pytest.mark.parametrize("name", FILES)
def test_each_file_missing(folder, name):
    """Two are not needed: the tokenizer's settings, for which CLIP's own stand in."""
    (folder / name).unlink()
    image = generated(folder)
    assert (image is not None) == (name in ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json"))


@pytest.mark.parametrize("name", FILES)
def test_each_file_a_folder(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    generated(folder)


# ---- made wrongly ----------------------------------------------------------------------------------------------


@given(place=st.sampled_from(KEYS), value=st.sampled_from(VALUES))
def test_a_wrong_value_in_a_config(place, value):
    name, key = place
    content = json.loads((TINY / name).read_text()) | {key: value}
    with_file(name, json.dumps(content).encode())


@pytest.mark.parametrize("value", [10**9, -1, 1.5, "x"])
@pytest.mark.parametrize("token", ["a", "new"])
def test_token_numbers_that_the_text_encoder_does_not_know(token, value):
    """The tokenizer itself refuses or corrects those that are no numbers."""
    name = "tokenizer/vocab.json"
    image = with_file(name, json.dumps(json.loads((TINY / name).read_text()) | {token: value}).encode())
    assert image is None or value != 10**9


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I64", "I16", "U8",
                                   "BOOL", "C64", "x", None, 3])  # fmt: skip
def test_every_kind_of_number(dtype):
    """The header says so, whatever the data's length is."""
    tensors, data = header((TINY / UNET).read_bytes())
    tensors["conv_out.bias"]["dtype"] = dtype
    with_file(UNET, with_header(tensors, data))


@pytest.mark.parametrize("change", [
    {"shape": [-1]}, {"shape": [10**18]}, {"shape": [2**62, 4]}, {"shape": [2, 2]}, {"shape": []}, {"shape": "4"},
    {"data_offsets": [0, 2**62]}, {"data_offsets": [8, 0]}, {"data_offsets": [-8, 0]}, {"data_offsets": []},
])  # fmt: skip
def test_headers_that_lie(change):
    tensors, data = header((TINY / UNET).read_bytes())
    tensors["conv_out.bias"] |= change
    assert with_file(UNET, with_header(tensors, data)) is None


@pytest.mark.parametrize("name", ["a\nb. C", "\x1b[31mred", "x" * 100_000, "", "é"])
def test_odd_names_of_tensors_stay_inside_the_sentence(name):
    tensors, data = header((TINY / UNET).read_bytes())
    tensors[name] = tensors.pop("conv_out.bias")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(shutil.copytree(TINY, Path(parent) / "model"))
        (folder / UNET).write_bytes(with_header(tensors, data))
        with pytest.raises(InputError, match="conv_out.bias") as caught:
            load(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 1000


@pytest.mark.parametrize("name, key", [
    (UNET, "conv_out.bias"), (WEIGHTS[1], "decoder.conv_out.bias"), (WEIGHTS[2], "text_model.final_layer_norm.bias"),
])  # fmt: skip
def test_weights_that_are_nan_load_and_give_no_black_image(folder, name, key):
    tensors = load_file(folder / name)
    tensors[key] = torch.full_like(tensors[key], math.nan)
    save_file(tensors, folder / name)
    model = load(folder)
    with one_sentence("NaN", "weights are broken"):
        txt2img(model, "a dog", num_inference_steps=1, seed=0)


# ---- made to do harm -------------------------------------------------------------------------------------------


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "disguise", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "shard", "config"]
)
def test_pickles_are_never_opened(folder, tmp_path, disguise):
    trap, sprung = pickle.dumps(Trap(tmp_path / "sprung")), tmp_path / "sprung"
    names = list(load_file(folder / UNET))
    (folder / UNET).unlink()
    if disguise == "shard":
        (folder / "unet/model.bin").write_bytes(trap)
        index = {"weight_map": dict.fromkeys(names, "model.bin")}
        (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    elif disguise == "config":
        shutil.copy(TINY / UNET, folder / UNET)
        (folder / "unet/config.json").write_bytes(trap)
    else:
        (folder / "unet" / disguise).write_bytes(trap)
    with one_sentence("unet"):
        load(folder)
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.exists()  # the trap does work


def test_code_beside_the_weights_is_never_run(folder, tmp_path):
    """transformers and diffusers can take a class from a file in the folder, if asked to; nobody here asks."""
    sprung = tmp_path / "sprung"
    for part, key in (("text_encoder", "AutoModel"), ("tokenizer", "AutoTokenizer")):
        (folder / part / "trap.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Trap: pass\n")
        name = "config.json" if part == "text_encoder" else "tokenizer_config.json"
        content = json.loads((folder / part / name).read_text())
        wanted = ["trap.Trap", None] if part == "tokenizer" else "trap.Trap"
        (folder / part / name).write_text(
            json.dumps(content | {"auto_map": {key: wanted, "AutoConfig": "trap.Trap"}})
        )
    assert generated(folder) is not None
    assert not sprung.exists()


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/dev/zero", "..", ".", "", "a\0b", "y" * 300, "a\nb", "C:x"]
)
def test_an_index_names_only_files_beside_it(folder, name):
    tensors = load_file(folder / UNET)
    (folder / UNET).rename(folder / "unet" / "part.safetensors")
    shutil.copy(TINY / UNET, folder / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "part.safetensors") | {"conv_out.bias": name}}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    assert generated(folder) is None


def linked(folder: Path, target: Path | str) -> LatentDiffusion | None:
    (folder / UNET).unlink()
    (folder / UNET).symlink_to(target)
    return or_one_sentence(lambda: load(folder))


def test_links(folder, tmp_path):
    """A link to weights loads, as the hub's own cache is made of links; one to anything else is refused."""
    assert linked(folder, TINY / UNET) is not None
    for target in (tmp_path / "nowhere", folder / UNET, folder / "unet", "/dev/zero", "/etc/passwd"):
        assert linked(folder, target) is None


@pytest.mark.parametrize(
    "source", ["a\0b", "\ud800/x", "x" * 5000, "x/" + "y" * 300, "~nobody-here/model", Path("a\0b")]
)
def test_names_that_no_folder_can_have(source, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"There is no folder|could not be fetched"):
        load(source)

"""Model folders that are damaged, made wrongly, or made to do harm: they load and paint, or are refused.

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
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from ldm_course.checkpoint import LatentDiffusion, load
from ldm_course.pipelines import txt2img

TINY = Path(__file__).parent / "fixtures" / "tiny-sd15"
UNET = "unet/diffusion_pytorch_model.safetensors"
WEIGHTS = (UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
CONFIGS = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json",
           "tokenizer/special_tokens_map.json")  # fmt: skip
FILES = sorted(str(path.relative_to(TINY)) for path in TINY.rglob("*") if path.is_file())
pytestmark = pytest.mark.filterwarnings("ignore")

KEYS = [(name, key) for name in CONFIGS for key in json.loads((TINY / name).read_text())]
MORE = {  # keys that the files of today do not have
    "text_encoder/config.json": ["layer_norm_eps", "output_hidden_states", "quantization_config", "auto_map"],
    "unet/config.json": ["norm_eps"],
    "vae/config.json": ["scaling_factor"],
    "tokenizer/tokenizer_config.json": ["auto_map", "added_tokens_decoder", "tokenizer_class"],
}
KEYS += [(name, key) for name, keys in MORE.items() for key in keys]
VALUES = [10**9, 2**40, 10**400, 1e300, -1e300, math.nan, math.inf, -1, 0, 1, 2, 1.5, True, False, None, "", "x",
          "é\0\n", [], {}, [10**9], [8] * 3000, {"a": 1}, [None], [[1]], "x" * 100_000, ["a", "B"]]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def painted(folder: Path) -> Image.Image | None:
    """A picture by the folder's model; None if loading it, or painting, ended in one sentence."""
    model = or_one_sentence(lambda: load(folder))
    if model is None:
        return None
    image = or_one_sentence(lambda: txt2img(model, "a dog", height=8, width=8, num_inference_steps=1, seed=0))
    assert image is None or (image.mode, image.size) == ("RGB", (8, 8))
    return image


def with_file(name: str, content: bytes) -> Image.Image | None:
    """What is painted from a copy of the folder in which one file holds these bytes."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(shutil.copytree(TINY, Path(parent) / "model"))
        (folder / name).write_bytes(content)
        return painted(folder)


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
    """In the data of weights it cannot be seen: the model loads, and paints another picture, or says NaN."""
    content = bytearray((TINY / name).read_bytes())
    content[int(where * min(len(content), 3000 if early else len(content)))] ^= 1 << bit
    with_file(name, bytes(content))


@given(name=st.sampled_from([name for name in FILES if name not in WEIGHTS]), where=st.floats(0, 1, exclude_max=True))
def test_texts_cut_short_anywhere(name, where):
    content = (TINY / name).read_bytes()
    with_file(name, content[: int(where * len(content))])


@pytest.mark.parametrize("content", [
    b"[" * 100_000, b'{"a":' * 100_000, '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}", b"null", b"NaN", b"3",
    b"\0" * 50, b'{"a":' + b"9" * 6000 + b"}", b'{"\\ud800": "\\udfff"}', b"\x80\x04K\x03.",
], ids=lambda content: repr(content[:12]))  # fmt: skip
@pytest.mark.parametrize("name", [*CONFIGS[:5], "tokenizer/vocab.json"])
def test_json_that_is_none(name, content):
    """Too deep, not in UTF-8, no object, numbers too long."""
    assert with_file(name, content) is None


@pytest.mark.parametrize("name", FILES)
def test_each_file_missing(folder, name):
    """Two are not needed: the tokenizer's settings, for which CLIP's own stand in."""
    (folder / name).unlink()
    image = painted(folder)
    assert (image is not None) == (name in ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json"))


@pytest.mark.parametrize("name", FILES)
def test_each_file_a_folder(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    painted(folder)


# ---- made wrongly ----------------------------------------------------------------------------------------------


@given(place=st.sampled_from(KEYS), value=st.sampled_from(VALUES))
@example(("unet/config.json", "layers_per_block"), 10**9)
@example(("unet/config.json", "block_out_channels"), [10**9, 10**9])
@example(("vae/config.json", "block_out_channels"), [2**16] * 2)
@example(("text_encoder/config.json", "num_hidden_layers"), 10**9)
@example(("text_encoder/config.json", "vocab_size"), 10**18)
@example(("scheduler/scheduler_config.json", "num_train_timesteps"), 10**10)
@example(("tokenizer/tokenizer_config.json", "model_max_length"), 0)
@example(("text_encoder/config.json", "eos_token_id"), None)
@example(("text_encoder/config.json", "layer_norm_eps"), None)
def test_a_wrong_value_in_a_config(place, value):
    """A width of a thousand million allocates nothing, and as many layers take no time."""
    name, key = place
    content = json.loads((TINY / name).read_text()) | {key: value}
    with_file(name, json.dumps(content).encode())


@pytest.mark.parametrize("value", [10**9, 2**33, -1, 1.5, "x", None])
@pytest.mark.parametrize("token", ["a", "new"])
def test_token_numbers_that_the_text_encoder_does_not_know(token, value):
    """Those that are no numbers, or wrap around in 32 bits, the tokenizer itself puts right."""
    name = "tokenizer/vocab.json"
    image = with_file(name, json.dumps(json.loads((TINY / name).read_text()) | {token: value}).encode())
    assert image is None or value != 10**9


def test_known_words_that_are_no_text(folder):
    (folder / "tokenizer" / "known_words.txt").write_bytes(b"dog\n\xff\xfe\n")
    with one_sentence("known_words.txt", "UTF-8"):
        load(folder)


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
        with pytest.raises(ValueError, match="1 missing") as caught:
            load(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name, key", [
    (UNET, "conv_out.bias"), (WEIGHTS[1], "decoder.conv_out.bias"), (WEIGHTS[2], "text_model.final_layer_norm.bias"),
])  # fmt: skip
def test_weights_that_are_nan_load_and_paint_no_black_picture(folder, name, key):
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
    assert painted(folder) is not None
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
    assert painted(folder) is None


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
    with pytest.raises(ValueError, match=r"There is no folder|could not be fetched|not whole on this machine"):
        load(source)

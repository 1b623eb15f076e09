"""Model folders that are damaged, made wrongly, or made to do harm: they load and generate, or are refused.

hypothesis makes the damage up. `make test` tries a few, always the same; `make test-long` searches.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from helpers import one_sentence, or_one_sentence
from hypothesis import example, given
from hypothesis import strategies as st
from model_folders import TINY, edit, edit_weights
from model_folders import UNET_WEIGHTS as UNET
from PIL import Image
from safetensors.torch import load_file

from ldm_course.io.load import load
from ldm_course.pipelines import txt2img

FILES = sorted(str(path.relative_to(TINY)) for path in TINY.rglob("*") if path.is_file())
pytestmark = pytest.mark.filterwarnings("ignore")

# Those that we read ourselves; what transformers makes of wrong values in its own files is its affair.
OURS = ("model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json")
KEYS = [(name, key) for name in OURS for key in json.loads((TINY / name).read_text())]
KEYS += [("unet/config.json", "norm_eps"), ("vae/config.json", "scaling_factor")]  # which these files do not have
VALUES = [-1, 0, 1, 2, 10**9, 1.5, math.nan, math.inf, True, False, None, "", "x", "é\0\n", [], {}, [8], [8, 8],
          [None], [[1]], {"a": 1}, ["a", "B"]]  # fmt: skip


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


# ---- damage ----------------------------------------------------------------------------------------------------


@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True))
@example(UNET, 0.0)
@example("vae/diffusion_pytorch_model.safetensors", 0.999)
def test_files_cut_short_anywhere(name, where):
    content = (TINY / name).read_bytes()
    image = with_file(name, content[: int(where * len(content))])
    assert image is None or not name.endswith(".safetensors")


@given(
    name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), early=st.booleans()
)
def test_a_flipped_bit(name, where, bit, early):
    """In the data of weights it cannot be seen: the model loads, and generates another image, or says NaN."""
    content = bytearray((TINY / name).read_bytes())
    content[int(where * min(len(content), 3000 if early else len(content)))] ^= 1 << bit
    with_file(name, bytes(content))


NO_JSON = [b"", b'{"a": 1,\n', b"[]", b"\xff\xfe", '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}", b"null", b"NaN",
           b"\0" * 50, b'{"a":' + b"9" * 6000 + b"}", b"\x80\x04K\x03."]  # fmt: skip


@pytest.mark.parametrize("content", NO_JSON, ids=lambda content: repr(content[:12]))
@pytest.mark.parametrize("name", [*OURS, "text_encoder/config.json", "tokenizer/vocab.json"])
def test_json_that_is_none(name, content):
    """Not in UTF-8, no object, a number too long."""
    assert with_file(name, content) is None


@pytest.mark.parametrize("name", [*FILES, "scheduler", "text_encoder", "tokenizer", "unet", "vae"])
def test_each_file_missing_or_a_folder(folder, name):
    """Two are not needed: the tokenizer's settings, for which CLIP's own stand in."""
    (shutil.rmtree if (folder / name).is_dir() else Path.unlink)(folder / name)
    image = generated(folder)
    assert (image is not None) == (name in ("tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json"))
    (folder / name).mkdir()
    assert image is not None or generated(folder) is None


# ---- made wrongly ----------------------------------------------------------------------------------------------


@given(place=st.sampled_from(KEYS), value=st.sampled_from(VALUES))
def test_a_wrong_value_in_a_config(place, value):
    name, key = place
    with_file(name, json.dumps(json.loads((TINY / name).read_text()) | {key: value}).encode())


@pytest.mark.parametrize("value", [10**9, -1, 1.5, "x"])
@pytest.mark.parametrize("token", ["a", "new"])
def test_token_numbers_that_the_text_encoder_does_not_know(token, value):
    """The tokenizer itself refuses or corrects those that are no numbers."""
    name = "tokenizer/vocab.json"
    image = with_file(name, json.dumps(json.loads((TINY / name).read_text()) | {token: value}).encode())
    assert image is None or value != 10**9


@pytest.mark.parametrize("change", [
    *({"dtype": each} for each in ("F64", "F8_E4M3", "F8_E8M0", "F4", "I64", "I16", "U8", "BOOL", "C64", None)),
    {"shape": [-1]}, {"shape": [10**18]}, {"shape": [2**62, 4]}, {"shape": [2, 2]}, {"shape": []}, {"shape": "4"},
    {"data_offsets": [0, 2**62]}, {"data_offsets": [8, 0]}, {"data_offsets": [-8, 0]}, {"data_offsets": []},
])  # fmt: skip
def test_headers_that_lie(change):
    content = (TINY / UNET).read_bytes()
    length = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8 : 8 + length])
    tensors["conv_out.bias"] |= change
    text = json.dumps(tensors).encode()
    assert with_file(UNET, len(text).to_bytes(8, "little") + text + content[8 + length :]) is None


@pytest.mark.parametrize("name, key", [
    (UNET, "conv_out.bias"), ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"),
    ("text_encoder/model.safetensors", "text_model.final_layer_norm.bias"),
])  # fmt: skip
def test_weights_that_are_nan_load_and_give_no_black_image(folder, name, key):
    edit_weights(folder / name, {key: torch.full_like(load_file(folder / name)[key], math.nan)})
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
    "file", ["unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin", UNET, "shard", "unet/config.json"]
)
def test_pickles_are_never_opened(folder, tmp_path, file):
    trap, sprung = pickle.dumps(Trap(tmp_path / "sprung")), tmp_path / "sprung"
    names = list(load_file(folder / UNET))
    if not file.endswith(".json"):
        next((folder / file).parent.glob("*.safetensors"), folder / UNET).unlink()
    if file == "shard":
        (folder / f"{UNET}.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "model.bin")}))
        file = "unet/model.bin"
    (folder / file).write_bytes(trap)
    with one_sentence(str(folder / Path(file).parent), Path(file).name):
        load(folder)
    assert not sprung.exists()
    pickle.loads(trap)
    assert sprung.exists()  # the trap does work


def test_code_beside_the_weights_is_never_run(folder, tmp_path):
    """transformers and diffusers can take a class from a file in the folder, if asked to; nobody here asks."""
    sprung = tmp_path / "sprung"
    for name, key, wanted in (
        ("text_encoder/config.json", "AutoModel", "trap.Trap"),
        ("tokenizer/tokenizer_config.json", "AutoTokenizer", ["trap.Trap", None]),
    ):
        (folder / name).with_name("trap.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Trap: pass\n")
        edit(folder / name, auto_map={key: wanted, "AutoConfig": "trap.Trap"})
    assert generated(folder) is not None
    assert not sprung.exists()


def test_links(folder, tmp_path):
    """A link to weights loads, as the hub's own cache is made of links; one to anything else is refused."""
    for target in (TINY / UNET, tmp_path / "nowhere", folder / UNET, folder / "unet", "/dev/zero", "/etc/passwd"):
        (folder / UNET).unlink()
        (folder / UNET).symlink_to(target)
        assert (or_one_sentence(lambda: load(folder)) is not None) == (target == TINY / UNET)

"""The weight files of a model's parts: safetensors only, and exactly the tensors that a module has.

Pickles are not opened, because opening one can run code. Loading is strict, because a tensor that is missing would
leave a random weight in the model.
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm_course.errors import InputError, brief
from ldm_course.io.configs import read_json

STEMS = {  # how the names of each part's weight files begin
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # until diffusers 0.17


def variants(half: bool) -> tuple[str, str]:
    """The marks of weight files in order of preference: fp16 first for half precision, or the plain ones."""
    return (".fp16", "") if half else ("", ".fp16")


def index_names(stem: str, variant: str) -> tuple[str, str, str]:
    """The names of an index of shards, which differ between versions of diffusers and transformers."""
    return (
        f"{stem}.safetensors.index{variant}.json",
        f"{stem}.safetensors{variant}.index.json",
        f"{stem}{variant}.safetensors.index.json",
    )


def weight_patterns(part: str, variant: str) -> list[str]:
    """Patterns for the files that may hold a part's weights in a repository: one file, or shards and their index."""
    stem = STEMS[part]
    shards = (f"{stem}{variant}-?????-of-?????.safetensors", f"{stem}-?????-of-?????{variant}.safetensors")
    return [f"{part}/{name}" for name in (f"{stem}{variant}.safetensors", *shards, *index_names(stem, variant))]


def weight_files(folder: Path, variant: str) -> list[Path]:
    """The safetensors files with the weights of the part in `folder`; an empty list if there are none."""
    stem = STEMS[folder.name]
    single = folder / f"{stem}{variant}.safetensors"
    index = next((folder / name for name in index_names(stem, variant) if (folder / name).is_file()), None)
    if single.is_file() or index is None:
        return [single] if single.is_file() else []
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    for shard in shards:
        if re.search(r"[/\\:]", shard):
            raise InputError(f"The file {index} lists {shard!r}, which is not in its folder, so it is not opened.")
    return [folder / shard for shard in shards]


def read_weights(folder: Path, half: bool) -> dict[str, Tensor]:
    """The tensors of the part in `folder`, by name, on the CPU.

    Raises:
        InputError: if there are no safetensors, or they are broken.
    """
    files = next(filter(None, (weight_files(folder, variant) for variant in variants(half))), [])
    if not files:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        if pickles:
            raise InputError(
                f"The folder {folder} has its weights only as a pickle, {pickles[0]}, which is refused because "
                "opening it can run code; look for a version with safetensors."
            )
        raise InputError(f"The folder {folder} has no {STEMS[folder.name]}.safetensors; fetch the model again.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file, device="cpu")
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"The file {file} is missing, broken or cut short ({brief(error)}); fetch the model again."
            ) from error
    return tensors


def fill(module: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    """Make the tensors the module's parameters.

    Raises:
        InputError: unless they are exactly the module's, in name and shape.
    """
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        complaints = "; ".join(line.strip(" .") for line in str(error).split("\n\t")[1:])
        raise InputError(f"The weights in {folder} do not fit its config.json ({complaints}).") from error


def renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A VAE tensor's name and shape as in diffusers 0.18 and later; the attention's layers differed before."""
    before, attention, rest = name.rpartition("mid_block.attentions.0.")
    layer, _, kind = rest.rpartition(".")
    if not attention or layer == "group_norm":
        return name, tensor
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):  # in the oldest files, a 1x1 convolution
        tensor = tensor[:, :, 0, 0]
    return f"{before}{attention}{OLD_VAE_NAMES.get(layer, layer)}.{kind}", tensor

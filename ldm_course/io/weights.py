"""The weight files of a model's parts: safetensors only, and exactly the tensors that a module has.

Pickles are not opened, because opening one can run code. A tensor too many, too few or of another shape is an error:
a warning would leave random weights in the model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm_course.errors import InputError, brief
from ldm_course.io.configs import read_json

PARTS_WITH_WEIGHTS = {  # and the stems of their files
    "text_encoder": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # until diffusers 0.17


def variants(half: bool) -> tuple[str, str]:
    """Which weight files to look for first: those marked fp16, or the plain ones."""
    return (".fp16", "") if half else ("", ".fp16")


def weight_patterns(part: str, variant: str) -> tuple[str, str, str]:
    """The names that a part's weights have in a repository: in one file; or in several, and their index."""
    stem = f"{part}/{PARTS_WITH_WEIGHTS[part]}"
    return (
        f"{stem}{variant}.safetensors",
        f"{stem}{variant}-*.safetensors",
        f"{stem}.safetensors.index{variant}.json",
    )


def weight_files(folder: Path, variant: str) -> tuple[list[Path], Path]:
    """The safetensors files of a part, none if there are none, and the one to name: the file itself or the index."""
    single, _, index = (folder.parent / name for name in weight_patterns(folder.name, variant))
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else [], single
    try:
        shards = sorted(set(read_json(index)["weight_map"].values()))
        outside = [shard for shard in shards if re.search(r"[/\\:]", shard)]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"The file {index} does not list the weights' files; fetch the model again.") from error
    if outside:
        raise InputError(
            f"The file {index} lists {outside[0]!r}, which is no file name in its folder, so it is not opened."
        )
    for shard in shards:
        if not os.path.isfile(folder / shard):  # a name too long, too, is none
            raise InputError(
                f"The file {folder / shard} is missing, though {index.name} lists it; fetch the model again."
            )
    return [folder / shard for shard in shards], index


def read_weights(folder: Path, half: bool) -> tuple[dict[str, Tensor], Path]:
    """Read the tensors of a part, by name; also returns the file to name if they turn out wrong.

    Raises:
        InputError: if there are no safetensors (pickles are not opened), or they are broken.
    """
    found = [weight_files(folder, variant) for variant in variants(half)]
    files, source = next(((files, source) for files, source in found if files), ([], folder))
    if not files:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        if pickles:
            raise InputError(
                f"The folder {folder} has its weights only as a pickle, {pickles[0]}, which is refused because "
                "opening it can run code; look for a version with safetensors."
            )
        raise InputError(
            f"The folder {folder} has no {PARTS_WITH_WEIGHTS[folder.name]}.safetensors; fetch the model again."
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"The file {file} is broken or cut short ({brief(error)}); fetch it again.") from error
    return tensors, source


def fill(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Make the tensors the module's parameters.

    Raises:
        InputError: unless they are exactly the module's, in name and shape.
    """
    wanted = module.state_dict()
    misfits = [
        f"{name}, {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in tensors.items()
        if name in wanted and (tensor.shape != wanted[name].shape or not tensor.is_floating_point())
    ]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", [name for name in wanted if name not in tensors]),
            ("unexpected", [name for name in tensors if name not in wanted]),
            ("misshapen", misfits),
        )
        if names
    ]
    if complaints:
        raise InputError(
            f"The file {source} does not fit the config.json beside it; of its tensors {', '.join(complaints)}."
        )
    module.load_state_dict(tensors, strict=True, assign=True)


def renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A VAE tensor's name and shape as they have been since diffusers 0.18: the attention's layers had other ones."""
    before, attention, rest = name.rpartition("mid_block.attentions.0.")
    layer, _, kind = rest.rpartition(".")
    if not attention or layer == "group_norm":
        return name, tensor
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):  # in the oldest files, a 1x1 convolution
        tensor = tensor[:, :, 0, 0]
    return f"{before}{attention}{OLD_VAE_NAMES.get(layer, layer)}.{kind}", tensor

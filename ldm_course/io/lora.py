"""LoRA files: safetensors in diffusers' format, which diffusers' `load_lora_weights` reads, and peft writes.

A file has two matrices for each layer, such as

    unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight     A, (rank, in_features)
    unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight     B, (out_features, rank)

Its strength, lora_alpha / rank, is 1 unless the metadata say otherwise. The files that we write hold it in B.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ldm_course.errors import InputError, brief
from ldm_course.io.load import compile_unet
from ldm_course.lora import LoRALinear, lora_layers, merge_lora, with_layers
from ldm_course.model import LatentDiffusion, check_model
from ldm_course.unet import UNet

SUFFIX = ".safetensors"
METADATA = "lora_adapter_metadata"  # the key of the file's header under which diffusers keeps peft's configuration
UNSUPPORTED = ("use_dora", "use_rslora", "lora_bias", "alora_invocation_tokens")  # would change what is computed
HALVES = {"lora_A": "A", "lora_B": "B", "lora.down": "A", "lora.up": "B"}  # the last two: until diffusers 0.25
KEY = re.compile(rf"(?:unet\.)?(.+)\.({'|'.join(map(re.escape, HALVES))})\.weight")


@dataclass(frozen=True)
class Matrices:
    """One layer's part of a LoRA: A (rank, in_features), B (out_features, rank), and its strength."""

    A: Tensor
    B: Tensor
    scale: float


def load_lora(
    model: LatentDiffusion, path: str | Path, *, strength: float = 1.0, merge: bool = True
) -> LatentDiffusion:
    """The model with the LoRA of a file added to its UNet. The model itself stays as it is; they share weights.

    Args:
        path: a .safetensors file by `save_lora`, diffusers or peft.
        strength: 0 is without it, 1 as it was trained, above 1 exaggerates.
        merge: compute it into the UNet's weights, which then is as fast as before. False keeps it beside them, to be
            scaled or removed later (`ldm_course.lora`).

    Raises:
        InputError: if the file is not such a LoRA, or is one for another model, or the strength is not a number.
    """
    return attach(model, read_lora(path), path, strength=strength, merge=merge)


def attach(
    model: LatentDiffusion,
    matrices: Mapping[str, Matrices],
    path: str | Path,
    *,
    strength: float = 1.0,
    merge: bool = True,
) -> LatentDiffusion:
    """As `load_lora`, for a file that has been read already; `path` is its name."""
    check_strength(strength)
    unet = _own_unet(model)
    there = {name: layer for name, layer in unet.named_modules() if isinstance(layer, (nn.Linear, LoRALinear))}
    layers = {name: _around(there.get(name), name, one, strength, path) for name, one in matrices.items()}
    unet = with_layers(unet, layers).eval()
    unet = merge_lora(unet) if merge else unet
    if model.unet._compiled_call_impl is not None:
        compile_unet(unet)
    return replace(model, unet=unet)


def check_strength(strength: object) -> None:
    """Raise InputError unless it is a number."""
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not math.isfinite(strength):
        raise InputError(f"The strength of a LoRA is {strength!r}; it must be a finite number, such as 1.")


def _own_unet(model: LatentDiffusion) -> UNet:
    check_model(model)
    if not isinstance(model.unet, UNet):
        raise InputError("Only this course's own UNet can have a LoRA; the model's is something else.")
    return model.unet


def _around(layer: Any, name: str, one: Matrices, strength: float, path: str | Path) -> LoRALinear:
    if layer is None:
        raise InputError(f"The LoRA {path} is for another model: its {name} is not a linear layer of this UNet.")
    (rank, reads), (writes, _) = one.A.shape, one.B.shape
    if (reads, writes) != (layer.in_features, layer.out_features):
        raise InputError(
            f"The LoRA {path} is for another model: its {name} reads {reads} and writes {writes} values, and that of "
            f"this UNet reads {layer.in_features} and writes {layer.out_features}."
        )
    around = LoRALinear(layer, rank, lora_alpha=rank * one.scale * strength)
    with torch.no_grad():
        around.lora_A.weight.copy_(one.A)
        around.lora_B.weight.copy_(one.B)
    around.lora_A.requires_grad_(False)
    around.lora_B.requires_grad_(False)
    return around


def read_lora(path: str | Path) -> dict[str, Matrices]:
    """The matrices of a LoRA file by the name of the UNet's layer, on the CPU.

    Raises:
        InputError: if there is no such file, if it is broken or no LoRA for a UNet's linear layers, or if it needs a
            kind of LoRA that this course does not build.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    if path.suffix != SUFFIX:
        raise InputError(f"The LoRA {path} must be a {SUFFIX} file; other kinds can run code when they are opened.")
    try:
        with safe_open(path, "pt", device="cpu") as file:
            header, tensors = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}
        settings = json.loads(header.get(METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"The file {path} is broken or cut short ({brief(error)}); fetch it again.") from None

    settings = {key.removeprefix("unet."): value for key, value in settings.items()}
    for key in UNSUPPORTED:
        if settings.get(key):
            raise InputError(f"The LoRA {path} has {key} {settings[key]!r}, which this course does not support.")
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        matched = KEY.fullmatch(key)
        if key.startswith("text_encoder"):
            raise InputError(f"The LoRA {path} also changes the text encoder ({key}); only the UNet's are supported.")
        if matched is None or tensor.dim() != 2 or 0 in tensor.shape or not tensor.is_floating_point():
            raise InputError(
                f"The file {path} is not a LoRA in diffusers' format for linear layers of a UNet: it holds {key!r}, "
                f"{tuple(tensor.shape)}."
            )
        if not tensor.isfinite().all():
            raise InputError(f"The LoRA {path} has values that are not finite, in {key}; fetch or train it again.")
        name, half = matched.groups()
        found.setdefault(name.replace(".processor.", "."), {})[HALVES[half]] = tensor
    if not found:
        raise InputError(f"The file {path} is not a LoRA: it holds no tensors.")
    for name, pair in found.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            raise InputError(f"The LoRA {path} has no matching pair of lora_A and lora_B for {name}.")
    return {name: Matrices(**pair, scale=_scale(name, len(pair["A"]), settings)) for name, pair in found.items()}


def _scale(name: str, rank: int, settings: Mapping[str, Any]) -> float:
    """lora_alpha / rank of a layer, by peft's configuration; 1 without one."""
    patterns = settings.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", name))
    return float(next(own, settings.get("lora_alpha", rank))) / rank


def save_lora(model: LatentDiffusion, path: str | Path) -> None:
    """Write the LoRA of the model's UNet as a file that `load_lora` and diffusers read; whole or not at all.

    Its matrices are stored at the strength that they have now, so that lora_alpha is the rank.

    Raises:
        InputError: if the UNet has no LoRA, or two, one around the other; if a value is not finite; if the file does
            not end in .safetensors, or its folder does not exist.
    """
    unet, path = _own_unet(model), Path(path).expanduser()
    if path.suffix != SUFFIX or not path.absolute().parent.is_dir():
        raise InputError(f"A LoRA is saved as a {SUFFIX} file in a folder that exists, not as {str(path)!r}.")
    layers = lora_layers(unet)
    if not layers:
        raise InputError("This UNet has no LoRA beside its weights, so there is nothing to save.")
    tensors = {}
    for name, layer in layers.items():
        if isinstance(layer.base_layer, LoRALinear):
            raise InputError("This UNet has two LoRAs, one around the other; save each by itself.")
        tensors[f"unet.{name}.lora_A.weight"] = layer.lora_A.weight
        tensors[f"unet.{name}.lora_B.weight"] = layer.scale * layer.lora_B.weight
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise InputError("Nothing was saved, because the LoRA has values that are not finite; train it again.")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, unfinished, metadata={"format": "pt"})
        unfinished.chmod(0o666 & ~_umask())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    """What new files' permissions lack; safetensors' own files can be read by nobody else."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

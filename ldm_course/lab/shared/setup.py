"""The model that a notebook asks for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ldm_course.errors import InputError
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.model import LatentDiffusion

SMALL = "small"


def load_model(name: str = SMALL) -> tuple[LatentDiffusion, Path]:
    """Load a model, print one line about it, and return it with the folder of its files.

    "small" is the model that ships with the course. It runs on the CPU in float32, so that its numbers are the same
    everywhere. Any other name is a folder in diffusers' format or an id on the Hugging Face hub. It runs on the GPU
    in float16; a folder also runs on the CPU, in float32. If it cannot be loaded, the reason is printed and "small"
    is loaded instead.
    """
    if name != SMALL:
        gpu, local = torch.cuda.is_available(), Path(name).expanduser().is_dir()
        if gpu or local:
            try:
                device, dtype = ("cuda", torch.float16) if gpu else ("cpu", torch.float32)
                model = load(name, device=device, dtype=dtype)
                folder = Path(name).expanduser() if local else _in_cache(name)
            except (InputError, MemoryError) as error:
                print(f"{error} Going on with the small model.")
            else:
                print(_described(name, model))
                if not local:
                    print(f"Its licence: https://huggingface.co/{name}. No safety checker runs here.")
                return model, folder
        else:
            print(f"{name} needs a GPU, and there is none here. Going on with the small model.")
    model = load(device="cpu", dtype=torch.float32)
    print(_described("the small one that ships with the course", model))
    return model, bundled_path()


def _in_cache(hub_id: str) -> Path:
    """The folder of a model that huggingface_hub has downloaded."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(hub_id, local_files_only=True))


def _described(name: str, model: LatentDiffusion) -> str:
    parts: tuple[nn.Module, ...] = (model.unet, model.vae, model.text_encoder)
    millions = sum(weight.numel() for part in parts for weight in part.parameters()) / 1e6
    size = f"{model.native_size} x {model.native_size} pixels"
    place = f"on {model.device.type} in {str(model.dtype).removeprefix('torch.')}"
    return f"Model: {name}. {millions:,.0f} million weights, {size}, {place}."

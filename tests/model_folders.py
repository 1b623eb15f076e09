"""Model folders for tests: where the small one of the hub is, how to change one, and what is sampled from one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img

TINY = Path(__file__).parent / "fixtures" / "tiny-sd15"
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PROMPT = {"prompt": "a dog with glasses", "num_inference_steps": 4}


def edit(path: Path, **changes) -> None:
    """Set keys of a JSON file; ... removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def edit_weights(path: Path, **changes: Tensor) -> None:
    """Set tensors of a safetensors file, '.' written as '__'; ... removes one."""
    tensors = load_file(path) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({k: v.clone() for k, v in tensors.items() if v is not ...}, path, metadata={"format": "pt"})


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def their_image(pipe: StableDiffusionPipeline) -> Image.Image:
    pipe.set_progress_bar_config(disable=True)
    return pipe(**PROMPT, generator=torch.Generator().manual_seed(0)).images[0]


def our_image(model: LatentDiffusion) -> Image.Image:
    return txt2img(model, **PROMPT, generator=torch.Generator().manual_seed(0))

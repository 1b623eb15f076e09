"""Model folders for tests: the hub's small one, how to change one, and what is sampled from one."""

from __future__ import annotations

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


def edit_weights(path: Path, changes: dict[str, Tensor]) -> None:
    """Set tensors of a safetensors file; ... removes one."""
    tensors = load_file(path) | changes
    save_file({k: v.clone() for k, v in tensors.items() if v is not ...}, path, metadata={"format": "pt"})


def contents(folder: Path) -> dict[str, int]:
    """A hash of each file, by its path."""
    return {str(p.relative_to(folder)): hash(p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def their_image(pipe: StableDiffusionPipeline) -> Image.Image:
    pipe.set_progress_bar_config(disable=True)
    return pipe(**PROMPT, generator=torch.Generator().manual_seed(0)).images[0]


def our_image(model: LatentDiffusion) -> Image.Image:
    return txt2img(model, **PROMPT, generator=torch.Generator().manual_seed(0))

"""The model that a notebook asks for, and diffusers' pipeline from the same files to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ldm_course.errors import InputError, check_choice
from ldm_course.io.hub import bundled_path
from ldm_course.io.load import load
from ldm_course.model import LatentDiffusion

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SMALL = "small"
DIFFUSERS = {  # task -> the class of diffusers that does it
    "txt2img": "StableDiffusionPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}


def load_model(name: str = SMALL) -> tuple[LatentDiffusion, Path]:
    """Load a model, say in a line which one and where it runs, and return it with the folder of its files.

    "small" is the model that ships with the course. It runs on the CPU, in float32, so that its numbers are the
    same everywhere. Any other name is a folder in diffusers' format or an id on the Hugging Face hub, and runs on
    the GPU in float16; a folder also without a GPU. If that cannot be, it says so and goes on with "small".
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
            print(f"{name} wants a GPU, and there is none here. Going on with the small model.")
    model = load()
    print(_described("the small one that ships with the course", model))
    return model, bundled_path()


def diffusers_pipeline(model: LatentDiffusion, folder: str | Path, task: str = "txt2img") -> DiffusionPipeline:
    """diffusers' own pipeline for a task, from the files that `model` was loaded from, with its DDIM scheduler.

    Args:
        task: "txt2img", "img2img" or "inpaint".
    """
    check_choice("task", task, tuple(DIFFUSERS))
    with quiet():
        import diffusers

        names = [file.name for file in Path(folder).glob("unet/*.safetensors")]
        halves = [name for name in names if ".fp16" in name]
        half = bool(halves) and (model.dtype == torch.float16 or halves == names)
        pipe = getattr(diffusers, DIFFUSERS[task]).from_pretrained(
            folder,
            torch_dtype=model.dtype,
            variant="fp16" if half else None,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            local_files_only=True,
        )
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(model.device)


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars, and without remarks on what nobody here uses."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    theirs_shown = diffusers_logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that change from version to version
            yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
        if theirs_shown:
            diffusers_logging.enable_progress_bar()


def _in_cache(hub_id: str) -> Path:
    """Where huggingface_hub keeps a model that `load` has just fetched."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(hub_id, local_files_only=True))


def _described(name: str, model: LatentDiffusion) -> str:
    parts: tuple[nn.Module, ...] = (model.unet, model.vae, model.text_encoder)
    millions = sum(weight.numel() for part in parts for weight in part.parameters()) / 1e6
    size = f"{model.native_size} x {model.native_size} pixels"
    place = f"on {model.device.type} in {str(model.dtype).removeprefix('torch.')}"
    return f"Model: {name}. {millions:,.0f} million weights, {size}, {place}."

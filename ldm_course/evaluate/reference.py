"""diffusers' pipelines from the files of our model, to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ldm_course.errors import check_choice
from ldm_course.model import LatentDiffusion

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DIFFUSERS = {  # task -> the class of diffusers that does it
    "txt2img": "StableDiffusionPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}


def diffusers_pipeline(model: LatentDiffusion, folder: str | Path, task: str = "txt2img") -> DiffusionPipeline:
    """diffusers' pipeline for a task, from the files that `model` was loaded from, with diffusers' DDIM scheduler.

    Args:
        model: says which device and dtype to use.
        folder: of the model's files.
        task: "txt2img", "img2img" or "inpaint".

    Raises:
        InputError: for another task.
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
    """Silence the progress bars and log messages of transformers and diffusers, and their FutureWarnings."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = [module for module in (logging, diffusers_logging) if module.is_progress_bar_enabled()]
    logging.set_verbosity_error()
    for module in bars:
        module.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that change from version to version
            yield
    finally:
        logging.set_verbosity(verbosity)
        for module in bars:
            module.enable_progress_bar()

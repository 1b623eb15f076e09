"""What training reads, computed once and cached in files that are named after what made them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor, nn

from ldm_course.scenes.dataset import render_scenes
from ldm_course.train import loop


def training_images(folder: Path, name: str, options: loop.Options) -> np.ndarray:
    """The images of a training set, by `render_scenes`; one process renders them, the others wait."""
    with loop.processes().main_process_first():
        return render_scenes(folder, name, options.seed, options.dataset_size)


def cached(
    folder: Path, name: str, options: loop.Options, parts: tuple[str, ...], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `compute` makes of the training set with these parts; one process computes it, if there is no such file.

    The file's name has the digests of the scenes' source and of the parts, from `options.parts`.

    Raises:
        OSError: if it cannot be written.
    """
    made_by = "-".join(options.parts[part] for part in ("scenes", *parts))
    path = folder / f"{name}-{options.seed}-{options.dataset_size}-{made_by}.safetensors"
    with loop.processes().main_process_first():
        if not path.exists():
            loop.save_tensors(compute(), path)
        return load_file(path)


def digest(module: nn.Module) -> str:
    """A hash of a module's weights."""
    sha = hashlib.sha256()
    for tensor in module.state_dict().values():
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]

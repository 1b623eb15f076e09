"""Training pictures: the small world rendered once, kept on disk, read by index."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from ldm_course.errors import brief
from ldm_course.scenes import Scene, random_scene, training_scene
from ldm_course.training import loop

CHUNK = 250  # pictures per job of a rendering process


def judge_scene(seed: int, index: int) -> Scene:
    """Scene number `index` for the judge, who may see everything, held-out combinations included."""
    return random_scene(random.Random(f"judge-{seed}-{index}"), held_out=None)


def _render(name: str, seed: int, start: int, stop: int, size: int) -> np.ndarray:
    scene_at = judge_scene if name == "judge" else training_scene
    return np.stack([np.asarray(scene_at(seed, i).render(size)) for i in range(start, stop)])


def pictures(folder: Path, name: str, seed: int, count: int, size: int = 128) -> np.ndarray:
    """The first `count` pictures of a training set, uint8 (count, size, size, 3), as a memory map.

    `name` is "train" (never a held-out combination) or "judge" (any). The file in `folder` is rendered at the
    first call, by all cores, in about 8 ms a picture and core, and appears only when it is complete.
    """
    path = folder / f"{name}-{seed}-{count}-{size}.npy"
    with loop.processes().main_process_first():  # of several that train together; the others find the file
        if not path.exists():
            _render_all(path, name, seed, count, size)
    return np.load(path, mmap_mode="r")


def _render_all(path: Path, name: str, seed: int, count: int, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = count * size * size * 3, shutil.disk_usage(path.parent).free
    if needed > free:  # a memory map that finds no room kills the process
        raise OSError(
            f"The pictures need {needed / 1e9:.1f} GB in {path.parent}, where {free / 1e9:.1f} GB are free."
        )
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    starts = range(0, count, CHUNK)
    try:
        out = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3))
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_render, name, seed, i, min(i + CHUNK, count), size) for i in starts]
            for start, job in zip(tqdm(starts, desc=f"rendering {name} pictures", unit_scale=CHUNK), jobs):
                out[start : start + CHUNK] = job.result()
        out.flush()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def kept(folder: Path, name: str, model: nn.Module, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `compute` makes of `model`: computed once, and then read from a file that is named after its weights.

    Raises:
        OSError: if it cannot be written.
    """
    path = folder / f"{name}-{digest(model)[:12]}.safetensors"
    with loop.processes().main_process_first():
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")
            try:
                save_file({key: tensor.contiguous() for key, tensor in compute().items()}, unfinished)
                os.replace(unfinished, path)
            except SafetensorError as error:
                raise OSError(f"{path.name} could not be written to {folder} ({brief(error)}); make room.") from error
            finally:
                unfinished.unlink(missing_ok=True)
    return load_file(path)


def digest(module: nn.Module) -> str:
    """The sha256 of a module's weights, in hexadecimal."""
    sha = hashlib.sha256()
    for tensor in module.state_dict().values():
        sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def to_tensor(batch: np.ndarray) -> Tensor:
    """uint8 (b, h, w, 3) to float32 (b, 3, h, w) in [-1, 1], as the VAE takes it."""
    return torch.tensor(batch).permute(0, 3, 1, 2).float() / 127.5 - 1.0

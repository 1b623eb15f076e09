"""The training images: scenes rendered once, cached on disk, read by index."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ldm_course.scenes.chimera import mixed_scene
from ldm_course.scenes.scene import Scene, random_scene, training_scene

CHUNK = 250  # images per job of a rendering process


def classifier_scene(seed: int, index: int) -> Scene:
    """Scene number `index` for the classifier, which may see everything, held-out combinations included."""
    return random_scene(random.Random(f"judge-{seed}-{index}"), held_out=None)


SETS = {"train": training_scene, "mixed": mixed_scene, "classifier": classifier_scene}


def source_digest(folder: Path = Path(__file__).parent) -> str:
    """A hash of the package's source and of some images: of other drawings, captions or held-out scenes it differs.

    The images are in it because they also depend on the renderer.
    """
    sha = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        sha.update(file.name.encode() + file.read_bytes())
    for scene in (training_scene(0, i) for i in range(16)):
        sha.update(scene.render().tobytes() + scene.caption().encode())
    return sha.hexdigest()[:16]


def render_scenes(folder: Path, name: str, seed: int, count: int, size: int = 128) -> np.ndarray:
    """The first `count` images of a training set, uint8 (count, size, size, 3), as a memory map.

    They are rendered at the first call, on all cores, in about 8 ms an image and core, into a file in `folder` that
    appears only when it is complete. Its name has the `source_digest`, so that images of older code are not reused.

    Args:
        name: "train" (never a held-out combination), "mixed" (these and chimeras) or "classifier" (any).

    Raises:
        OSError: if there is not enough room for them.
    """
    path = folder / f"{name}-{seed}-{count}-{size}-{source_digest()}.npy"
    if not path.exists():
        _render_all(path, name, seed, count, size)
    return np.load(path, mmap_mode="r")


def _render_all(path: Path, name: str, seed: int, count: int, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = count * size * size * 3, shutil.disk_usage(path.parent).free
    if needed > free:  # a memory map that finds no room kills the process
        raise OSError(f"The images need {needed / 1e9:.1f} GB in {path.parent}, where {free / 1e9:.1f} GB are free.")
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    starts = range(0, count, CHUNK)
    try:
        out = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (count, size, size, 3))
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_render, name, seed, i, min(i + CHUNK, count), size) for i in starts]
            for start, job in zip(tqdm(starts, desc=f"rendering {name} images", unit_scale=CHUNK), jobs):
                out[start : start + CHUNK] = job.result()
        out.flush()
        del out  # Windows does not rename a file that is mapped
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _render(name: str, seed: int, start: int, stop: int, size: int) -> np.ndarray:
    return np.stack([np.asarray(SETS[name](seed, i).render(size)) for i in range(start, stop)])

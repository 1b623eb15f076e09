"""`ldm-course bench`: our images, diffusers' and onnxruntime's, from the same weights and noise, by turns.

The contestants generate one after the other in every round, in one process, so that a slow moment of the machine hits
them all; what counts is the ratio of their medians. Their images are compared, too. onnxruntime runs the UNet of our
own loop, exported by `io.onnx_export`; text encoder and VAE are ours there.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course import pipelines
from ldm_course.errors import InputError
from ldm_course.evaluate.reference import diffusers_pipeline
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.model import LatentDiffusion
from ldm_course.scenes import Scene

PROMPT = "a dog with glasses"
STRENGTH = 0.6
CASES = (("txt2img", 1), ("img2img", 1), ("inpaint", 1), ("txt2img", 16))  # task, number of images
THEIRS, OURS, FAST = "diffusers, float32", "ours, float32", "ours, bfloat16, compiled"
ONNX, ONNX_INT8 = "onnxruntime, float32", "onnxruntime, int8 weights"
COLOURS = {THEIRS: "#999999", OURS: "#0072b2", FAST: "#d55e00", ONNX: "#009e73", ONNX_INT8: "#cc79a7"}

Contestants = dict[str, Callable[[], list[Image.Image]]]


@dataclass(frozen=True)
class Row:
    """How long one contestant took for one task, the median of the rounds, and how far its images are off.

    ratio: its seconds as a share of diffusers'.
    warm_up: seconds of the first call, compiling included, which is not counted.
    largest, mean: difference of a pixel's channel from diffusers' image, in steps of 1/255.
    """

    task: str
    images: int
    who: str
    seconds: float
    ratio: float
    warm_up: float
    largest: int
    mean: float


def bench(
    model_folder: Path | None = None,
    *,
    num_inference_steps: int = 20,
    rounds: int = 7,
    threads: int | None = None,
    out: Path = Path("runs/bench"),
) -> list[Row]:
    """Time the three tasks against diffusers on the CPU, print the table, and write it as JSON and a plot into `out`.

    Args:
        model_folder: in diffusers' format; None is the model that ships with the package.
        num_inference_steps: of every image; image-to-image takes a share of them.
        rounds: how often each contestant generates, after once to warm up.
        threads: of torch; None leaves them as they are.

    Raises:
        InputError: if a number is below 1, the folder holds no model, or there is no compiler for the fast mode.
    """
    if min(rounds, 1 if threads is None else threads) < 1 or num_inference_steps < 2:
        raise InputError("The numbers of rounds and threads must be 1 or more, and that of steps 2 or more.")
    if threads is not None:
        torch.set_num_threads(threads)
    folder = bundled_path() if model_folder is None else model_folder
    models = {
        OURS: load(folder, device="cpu", dtype=torch.float32),
        FAST: load(folder, device="cpu", dtype=torch.bfloat16, compile=True),
    }
    models[OURS].schedule.timesteps(num_inference_steps)  # raises if it has not so many
    out.mkdir(parents=True, exist_ok=True)
    start_up: dict[str, float] = {}
    if all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        for who, int8 in ((ONNX, False), (ONNX_INT8, True)):
            models[who], start_up[who] = onnx_model(models[OURS], int8)
            print(f"{who}: its session starts in {start_up[who]:.2f} s")
    else:
        print('onnxruntime is left out; for its rows run: pip install "ldm-course[export]"')
    rows: list[Row] = []
    for task, b in tqdm(CASES, desc="comparing"):
        rows += compare(task, b, contestants(models, folder, task, b, num_inference_steps), rounds)

    settings = {"steps": num_inference_steps, "rounds": rounds, "threads": torch.get_num_threads()}
    print(f"{num_inference_steps} steps of DDIM, guidance 7.5, {settings['threads']} threads, medians of {rounds}")
    print(f"{'':43} {'seconds':>8} {'ratio':>6} {'first':>6}   off by, of 255: at most, on average")
    for row in rows:
        label = f"{row.task} of {row.images}, {row.who}"
        print(f"{label:43} {row.seconds:8.3f} {row.ratio:6.2f} {row.warm_up:5.1f}s {row.largest:10d} {row.mean:8.2f}")
    results = settings | {"start_up": start_up, "rows": [asdict(row) for row in rows]}
    (out / "bench.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    plot(rows).savefig(out / "bench.png", dpi=144)
    return rows


def compare(task: str, b: int, contestants: Contestants, rounds: int) -> list[Row]:
    """Let the contestants take turns; the first one is what the others are measured by."""
    images: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(1 + rounds):  # the first one warms up
        for who, generate in contestants.items():
            start = time.perf_counter()
            generated = generate()
            seconds[who].append(time.perf_counter() - start)
            images[who] = np.stack([np.asarray(image, dtype=int) for image in generated])
    medians = {who: statistics.median(times[1:]) for who, times in seconds.items()}
    first, rows = next(iter(contestants)), []
    for who, median in medians.items():
        apart, warm_up = np.abs(images[who] - images[first]), round(seconds[who][0], 1)
        off = int(apart.max()), float(apart.mean())
        rows.append(Row(task, b, who, median, median / medians[first], warm_up, *off))
    return rows


def onnx_model(model: LatentDiffusion, int8: bool) -> tuple[LatentDiffusion, float]:
    """The model with its UNet run by onnxruntime, in torch's number of threads; and the seconds of its start."""
    from ldm_course.io.onnx_export import session, unet_network, write_network

    with TemporaryDirectory() as folder:
        file = Path(folder) / "unet.onnx"
        write_network(unet_network(model), file, int8)
        start = time.perf_counter()
        opened = session(file, torch.get_num_threads())
        seconds = time.perf_counter() - start

    def unet(x_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        inputs = {"sample": x_t, "timestep": t.float(), "encoder_hidden_states": context}
        return torch.from_numpy(opened.run(None, {name: value.numpy() for name, value in inputs.items()})[0])

    return replace(model, unet=unet), seconds  # type: ignore[arg-type]  # any callable will do


def contestants(models: dict[str, LatentDiffusion], folder: Path, task: str, b: int, steps: int) -> Contestants:
    """Functions that do the task with diffusers and with each of the models, by name."""
    image = Scene(animal="dog", action="sitting").render(models[OURS].native_size)
    mask = Image.new("L", image.size)
    mask.paste(255, (0, image.height // 2, image.width, image.height))
    given: dict[str, Any] = {"prompt": [PROMPT] * b, "num_inference_steps": steps}
    if task != "txt2img":
        given |= {"image": image, "strength": STRENGTH}
    if task == "inpaint":
        given |= {"mask_image": mask, "strength": 1.0}
    sides = {"height": image.height, "width": image.width} if task == "inpaint" else {}
    pipe: Any = diffusers_pipeline(models[OURS], folder, task)

    def noise() -> torch.Generator:
        return torch.Generator("cpu").manual_seed(0)

    ours = getattr(pipelines, task)
    return {THEIRS: lambda: pipe(**given, **sides, generator=noise()).images} | {
        who: partial(lambda model: ours(model, **given, generator=noise()), model) for who, model in models.items()
    }


def plot(rows: list[Row]) -> Figure:
    """Seconds as a share of diffusers', a group of bars for each task."""
    tasks = list(dict.fromkeys((row.task, row.images) for row in rows))
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    everyone = list(dict.fromkeys(row.who for row in rows))
    width = 0.8 / len(everyone)
    for i, who in enumerate(everyone):
        ratios, shift = [row.ratio for row in rows if row.who == who], width * (i - (len(everyone) - 1) / 2)
        bars = axes.bar([x + shift for x in range(len(tasks))], ratios, 0.92 * width, color=COLOURS[who], label=who)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(tasks)), [f"{task}, {n} image{'s' if n > 1 else ''}" for task, n in tasks])
    axes.set(ylabel="time, as a share of diffusers'")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    return figure

"""The training loop that CLIP, the VAE, the UNet and the judge share, on Hugging Face `accelerate`.

A run can be killed at any moment and taken up again: which pictures a step sees, and which noise it draws, follow
from (seed, step) alone, and checkpoints appear whole or not at all.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ldm_course.errors import InputError, brief
from ldm_course.inputs import check_seed

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Options:
    """What a training command can choose. The run ends at `steps` or after `minutes`, whichever comes first.

    batch_size: pictures a step, over all processes together.
    learning_rate: after a warm-up of 100 steps; it falls linearly to zero over the last 30% of the run.
    ema: decay of the moving average of the weights, which is what gets saved.
    precision: "no" (float32), "bf16" or "fp16".
    """

    out: Path
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    ema: float = 0.999
    precision: str = "bf16"
    seed: int = 0
    pictures: int = 20_000
    checkpoint_minutes: float = 2.0
    sample_minutes: float = 5.0
    compile: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("Say how long to train: --steps N or --minutes M.")
        for name in ("steps", "minutes", "batch_size", "learning_rate", "pictures"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be more than 0, and finite, not {value}.")
        check_seed(self.seed)
        if self.precision not in ("no", "bf16", "fp16"):
            raise InputError(f"precision must be no, bf16 or fp16, not {self.precision!r}.")
        if self.precision == "fp16" and not torch.cuda.is_available():
            raise InputError("precision fp16 needs a GPU; take bf16.")


@dataclass
class Progress:
    """How far a run is: what a checkpoint holds besides weights and optimizer."""

    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] | None = None

    def share(self, options: Options) -> float:
        """From 0 at the start to 1 at the end."""
        by_steps = self.step / options.steps if options.steps else 0.0
        by_time = self.seconds / (60 * options.minutes) if options.minutes else 0.0
        return max(by_steps, by_time)


def learning_rate_at(step: int, share: float) -> float:
    """Factor on the learning rate: linear warm-up over 100 steps, flat, linear to zero over the last 30%."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1.0 - share) / 0.3))


def batch_indices(options: Options, step: int, rank: int, world: int) -> np.ndarray:
    """Which pictures this process sees at this step: its share of the joint batch."""
    joint = np.random.default_rng((options.seed, step)).integers(0, options.pictures, options.batch_size)
    return joint[rank::world]


def processes() -> PartialState:
    """The processes that train together. On CPUs accelerate has to be told of them, or each believes it is alone."""
    return PartialState(cpu=not torch.cuda.is_available())


def _noise_seed(*of: int) -> int:
    return int(np.random.default_rng(of).integers(2**62))


def checkpoints(out: Path) -> list[Path]:
    """The whole checkpoints of a run, the newest first."""
    return sorted((out / "checkpoints").glob("step-*[0-9]"), reverse=True)


def train(
    name: str,
    model: M,
    loss_of: Callable[[M, np.ndarray, int], tuple[Tensor, dict[str, Tensor]]],
    options: Options,
    sample: Callable[[M, Path], None] | None = None,
) -> M:
    """Train until the budget is spent; return the moving average of the weights, on the CPU.

    Args:
        name: shown on the progress bar.
        loss_of: (model, picture indices, step) -> loss and what to log beside it.
        sample: writes a picture of the averaged model's work to the given file, now and then.

    Raises:
        InputError: if the folder holds an earlier run and `resume` is not set, if no checkpoint of it can be read,
            if another training is at work in it, or if the processes cannot share a batch evenly.
        OSError: if a checkpoint cannot be written; the earlier ones are left.
    """
    accelerator = Accelerator(mixed_precision=options.precision, cpu=not torch.cuda.is_available())
    if options.batch_size % accelerator.num_processes:
        raise InputError(
            f"A batch of {options.batch_size} cannot be shared out evenly among {accelerator.num_processes} "
            "processes; choose a multiple of their number with --batch-size."
        )
    with _alone(accelerator, options.out):
        return _train(accelerator, name, model, loss_of, options, sample)


def _train(
    accelerator: Accelerator,
    name: str,
    model: M,
    loss_of: Callable[[M, np.ndarray, int], tuple[Tensor, dict[str, Tensor]]],
    options: Options,
    sample: Callable[[M, Path], None] | None,
) -> M:
    ema = AveragedModel(model, avg_fn=_average(options.ema), use_buffers=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01, fused=True)
    if options.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model, optimizer)
    ema = ema.to(accelerator.device)
    averaged: M = ema.module  # type: ignore[assignment]
    progress = Progress(log=[])
    if options.resume and checkpoints(options.out):
        progress = _resume(accelerator, ema, options.out)
        if accelerator.is_main_process:
            _write_options(options)
            if progress.share(options) >= 1.0:
                tqdm.write(f"{name}: all of its time is spent; to go on, ask for more minutes or steps in all.")
    elif accelerator.is_main_process:
        check_folder(options)
        _write_options(options)
    assert progress.log is not None

    bar = tqdm(total=100.0, initial=100 * progress.share(options), desc=name, disable=not accelerator.is_main_process)
    bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
    last = time.monotonic()
    saved = sampled = progress.seconds
    recent: list[dict[str, Tensor]] = []
    model.train()
    while progress.share(options) < 1.0:
        torch.manual_seed(_noise_seed(options.seed, progress.step, accelerator.process_index))
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * learning_rate_at(progress.step, progress.share(options))
        indices = batch_indices(options, progress.step, accelerator.process_index, accelerator.num_processes)
        with accelerator.autocast():
            loss, metrics = loss_of(model, indices, progress.step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update_parameters(accelerator.unwrap_model(model))

        progress.step += 1
        progress.seconds = _agree(accelerator, progress.seconds + time.monotonic() - last)
        last = time.monotonic()
        recent.append({"loss": loss.detach(), **metrics})
        if progress.step % 50 == 0 or progress.share(options) >= 1.0:
            own = {key: torch.stack([m[key].float() for m in recent]).mean() for key in recent[0]}
            means = {key: value.item() for key, value in accelerator.reduce(own, "mean").items()}
            progress.log.append({"step": progress.step, "seconds": round(progress.seconds, 1), **means})
            recent.clear()
            bar.set_postfix_str(f"step {progress.step} " + " ".join(f"{k} {v:.4f}" for k, v in means.items()))
        bar.update(min(100.0, 100 * progress.share(options)) - bar.n)
        if progress.seconds - saved > 60 * options.checkpoint_minutes:
            _save(accelerator, ema, progress, options)
            saved = progress.seconds
        if sample and accelerator.is_main_process and progress.seconds - sampled > 60 * options.sample_minutes:
            sampled = progress.seconds
            ema.eval()
            with torch.no_grad():
                sample(averaged, options.out / f"sample-{progress.step:07d}.png")
            last = time.monotonic()  # painting samples is not training time
    bar.close()
    _save(accelerator, ema, progress, options)
    return averaged.eval().cpu()


def _average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average whose memory grows with the run, up to `decay`, so that the start is forgotten."""

    def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        return torch.lerp(old, new, max(1.0 - decay, 9.0 / (10.0 + float(count))))

    return average


def _agree(accelerator: Accelerator, seconds: float) -> float:
    """All processes use the first one's clock, so that they stop at the same step."""
    if accelerator.num_processes == 1:
        return seconds
    clock = torch.tensor([seconds], device=accelerator.device, dtype=torch.float64)
    torch.distributed.broadcast(clock, 0)
    return float(clock)


@contextmanager
def _alone(accelerator: Accelerator, out: Path) -> Iterator[None]:
    """Two trainings in one folder would overwrite each other. The lock goes when the process does, in any way."""
    if not accelerator.is_main_process:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"Another training is at work in {out}: wait for it, or choose another --out.") from None
    try:
        yield
    finally:
        lock.release()


def _resume(accelerator: Accelerator, ema: AveragedModel, out: Path) -> Progress:
    """Load the newest checkpoint that can be read."""
    for checkpoint in checkpoints(out):
        try:
            accelerator.load_state(str(checkpoint))
            ema.load_state_dict(torch.load(checkpoint / "ema.pt", map_location="cpu", weights_only=True))
            return read_progress(checkpoint)
        except Exception as error:  # whatever the readers of four kinds of files say of a damaged one
            warnings.warn(f"The checkpoint {checkpoint} is damaged ({brief(error)}).", stacklevel=2)
    raise InputError(f"No checkpoint of {out} can be read: delete the folder, and train anew.")


def check_folder(options: Options) -> None:
    """That the folder is free for this run; asked before pictures are drawn for it, too.

    Raises:
        InputError: if it holds an earlier run and `resume` is not set.
    """
    if checkpoints(options.out) and not options.resume:
        raise InputError(
            f"{options.out} holds an earlier run: add --resume to go on with it, or choose another --out."
        )


def _write_options(options: Options) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    (options.out / "options.json").write_text(json.dumps(settings, indent=2) + "\n")


def _save(accelerator: Accelerator, ema: AveragedModel, progress: Progress, options: Options) -> None:
    """Write a checkpoint beside the old ones, rename it into place, then drop all but the one before it."""
    folder = options.out / "checkpoints" / f"step-{progress.step:07d}"
    unfinished = folder.with_name(folder.name + ".tmp")
    if folder.exists():
        return
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(unfinished))  # each process adds its random state
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            torch.save(ema.state_dict(), unfinished / "ema.pt")
            (unfinished / "progress.json").write_text(json.dumps(asdict(progress)))
            os.replace(unfinished, folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(
            f"The checkpoint of step {progress.step} could not be written to {options.out} ({brief(error)}); make "
            "room there, and go on from the one before with --resume."
        ) from error
    if accelerator.is_main_process:
        kept = checkpoints(options.out)[:2]
        for other in folder.parent.iterdir():
            if other not in kept:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def summary(folder: Path) -> dict[str, Any]:
    """Settings, steps, seconds and last logged values of a run, for the model card."""
    progress = read_progress(checkpoints(folder)[0])
    options = json.loads((folder / "options.json").read_text())
    del options["out"], options["resume"]  # of the machine and the moment
    last = progress.log[-1] if progress.log else {}
    return {"options": options, **last, "step": progress.step, "seconds": round(progress.seconds, 1)}


def read_progress(checkpoint: Path) -> Progress:
    """How far a run was at a checkpoint, with what it logged every 50 steps until then."""
    return Progress(**json.loads((checkpoint / "progress.json").read_text()))

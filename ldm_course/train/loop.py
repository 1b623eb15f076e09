"""The training loop that all stages share, on Hugging Face `accelerate`.

A run can be killed at any moment and resumed: which images a step sees, and which noise it draws, follow from
(seed, step), and checkpoints appear whole or not at all. Resuming changes nothing but how long the run is.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ldm_course.errors import InputError, brief, check_choice
from ldm_course.pipelines import check_seed

M = TypeVar("M", bound=nn.Module)
LossOf = Callable[[Any, np.ndarray, int], tuple[Tensor, dict[str, Tensor]]]
MAY_CHANGE = ("out", "steps", "minutes", "checkpoint_minutes", "sample_minutes", "compile", "resume")  # on --resume
LOG_EVERY = 50  # steps


@dataclass(frozen=True)
class Options:
    """What a training command can choose. The run ends at `steps` or after `minutes`, whichever comes first.

    batch_size: images a step, over all processes together.
    learning_rate: after a warm-up of 100 steps; it falls linearly to zero over the last 30% of the run.
    ema: decay of the moving average of the weights, which is what gets saved.
    precision: "no" (float32), "bf16" or "fp16".
    parts: digests of what the run is trained with; `stages` fills them in.
    started_from: how the weights that the run starts from were trained; empty for random weights.
    """

    out: Path
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    ema: float = 0.999
    precision: str = "bf16"
    seed: int = 0
    dataset_size: int = 20_000
    checkpoint_minutes: float = 2.0
    sample_minutes: float = 5.0
    compile: bool = False
    resume: bool = False
    parts: dict[str, str] = field(default_factory=dict)
    started_from: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise InputError("Say how long to train: --steps N or --minutes M.")
        for name in ("steps", "minutes", "batch_size", "learning_rate", "dataset_size"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be more than 0, and finite, not {value}.")
        check_seed(self.seed)
        check_choice("precision", self.precision, ("no", "bf16", "fp16"))
        if self.precision == "fp16" and not torch.cuda.is_available():
            raise InputError("precision fp16 needs an NVIDIA GPU; use bf16.")


@dataclass
class Progress:
    """How far a run is: what a checkpoint holds besides weights and optimizer."""

    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)


def train(
    name: str, model: M, loss_of: LossOf, options: Options, sample: Callable[[M, Path], None] | None = None
) -> M:
    """Train until the steps or minutes are used up; return the moving average of the weights, on the CPU.

    Args:
        name: shown on the progress bar.
        loss_of: (model, image indices, step) -> loss and what to log beside it.
        sample: writes an image of what the averaged model does to the given file, now and then.

    Raises:
        InputError: as `check_run`; if no checkpoint can be read, if another training is running in the folder, or if
            the processes cannot share a batch evenly.
        OSError: if a checkpoint cannot be written; the earlier ones are left.
    """
    check_run(options)
    if options.batch_size % processes().num_processes:
        raise InputError(
            f"A batch of {options.batch_size} cannot be split evenly among {processes().num_processes} processes; "
            "choose a multiple of their number with --batch-size."
        )
    main = processes().is_main_process
    with _locked(options.out) if main else nullcontext():
        training = Training(model, loss_of, options)
        if checkpoints(options.out):
            training.resume()
        if main:
            settings = json.dumps(asdict(options), indent=2, default=str)
            (options.out / "options.json").write_text(settings + "\n", encoding="utf-8")
            if training.share >= 1.0:
                tqdm.write(f"{name}: the steps or minutes are used up; raise --steps or --minutes to continue.")
        training.run(name, sample if main else None)
        return training.averaged.eval().cpu()


class Training(Generic[M]):
    """A model, its moving average, its optimizer and its progress: one step, the log, and checkpoints."""

    def __init__(self, model: M, loss_of: LossOf, options: Options):
        self.loss_of, self.options, self.progress = loss_of, options, Progress()
        self.accelerator = Accelerator(mixed_precision=options.precision, cpu=processes().device.type == "cpu")
        self.ema = AveragedModel(model, avg_fn=_average(options.ema), use_buffers=False).to(processes().device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01, fused=True)
        if options.compile:
            model.compile()
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.recent: list[dict[str, Tensor]] = []  # since the last entry of the log

    @property
    def averaged(self) -> M:
        return self.ema.module  # type: ignore[return-value]

    @property
    def share(self) -> float:
        """How much of the run is done: 0 at the start, 1 or more at the end."""
        by_steps = self.progress.step / (self.options.steps or math.inf)
        return max(by_steps, self.progress.seconds / (60 * (self.options.minutes or math.inf)))

    def run(self, name: str, sample: Callable[[M, Path], None] | None) -> None:
        """Steps until the end, with a progress bar, checkpoints and samples; at last the final checkpoint."""
        options, progress = self.options, self.progress
        saved = sampled = progress.seconds
        self.model.train()
        clock = time.monotonic()
        hidden = {} if self.accelerator.is_main_process else {"disable": True}  # False would override TQDM_DISABLE
        with tqdm(total=100.0, initial=100 * self.share, desc=name, **hidden) as bar:
            bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
            while self.share < 1.0:
                self.step()
                now = time.monotonic()
                # all processes use the first one's clock, so that they stop at the same step
                progress.seconds = broadcast_object_list([progress.seconds + now - clock])[0]
                clock = now
                if progress.step % LOG_EVERY == 0 or self.share >= 1.0:
                    bar.set_postfix_str(self.log())
                bar.update(min(100.0, 100 * self.share) - bar.n)
                if progress.seconds - saved > 60 * options.checkpoint_minutes:
                    self.save()
                    saved = progress.seconds
                if sample and progress.seconds - sampled > 60 * options.sample_minutes:
                    sampled = progress.seconds
                    with torch.no_grad():
                        sample(self.averaged.eval(), options.out / f"sample-{progress.step:07d}.png")
                    clock = time.monotonic()  # sampling does not count as training time
        self.save()

    def step(self) -> None:
        """One optimizer step, on the images and with the noise that follow from (seed, step)."""
        options, step, accelerator = self.options, self.progress.step, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        torch.manual_seed(int(np.random.default_rng((options.seed, step, rank)).integers(2**62)))
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * learning_rate_at(step, self.share)
        with accelerator.autocast():
            loss, metrics = self.loss_of(self.model, batch_indices(options, step, rank, world), step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update_parameters(accelerator.unwrap_model(self.model))
        self.progress.step += 1
        self.recent.append({"loss": loss.detach(), **metrics})

    def log(self) -> str:
        """Add the means over the last steps, and over all processes, to the log; return them as one line."""
        own = {key: torch.stack([entry[key].float() for entry in self.recent]).mean() for key in self.recent[0]}
        means = {key: value.item() for key, value in self.accelerator.reduce(own, "mean").items()}
        step, seconds = self.progress.step, round(self.progress.seconds, 1)
        self.progress.log.append({"step": step, "seconds": seconds, **means})
        self.recent.clear()
        return f"step {step} " + " ".join(f"{key} {value:.4f}" for key, value in means.items())

    def save(self) -> None:
        """Write a checkpoint beside the old ones, rename it into place, then delete all but the one before it."""
        folder = self.options.out / "checkpoints" / f"step-{self.progress.step:07d}"
        unfinished = folder.with_name(folder.name + ".tmp")

        def finish() -> None:
            save_tensors(self.ema.state_dict(), unfinished / "ema.safetensors")
            (unfinished / "progress.json").write_text(json.dumps(asdict(self.progress)), encoding="utf-8")
            os.replace(unfinished, folder)
            for other in {*folder.parent.iterdir()} - {*checkpoints(self.options.out)[:2]}:
                shutil.rmtree(other)

        if folder.exists():
            return
        on_main_process(lambda: shutil.rmtree(unfinished, ignore_errors=True))
        try:
            self.accelerator.save_state(str(unfinished))  # each process adds its random state
            self.accelerator.wait_for_everyone()
            on_main_process(finish)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise OSError(
                f"The checkpoint of step {self.progress.step} could not be written to {self.options.out} "
                f"({brief(error)}); free some space, and continue from the one before with --resume."
            ) from error

    def resume(self) -> None:
        """Load the newest checkpoint that can be read."""
        for checkpoint in checkpoints(self.options.out):
            try:
                self.accelerator.load_state(str(checkpoint))
                self.ema.load_state_dict(load_file(checkpoint / "ema.safetensors"))
                self.progress = read_progress(checkpoint)
                return
            except Exception as error:  # whatever the readers of four kinds of files raise for a damaged one
                warnings.warn(f"The checkpoint {checkpoint} is damaged ({brief(error)}).", stacklevel=2)
        raise InputError(f"No checkpoint of {self.options.out} can be read; delete the folder, and train again.")


# ---- which images, which rate, which average: functions of (seed, step) and of how far the run is ----------------


def learning_rate_at(step: int, share: float) -> float:
    """Factor on the learning rate: linear warm-up over 100 steps, flat, linear to zero over the last 30%."""
    return min(1.0, (step + 1) / 100) * min(1.0, max(0.0, (1.0 - share) / 0.3))


def batch_indices(options: Options, step: int, rank: int, world: int) -> np.ndarray:
    """Which images this process sees at this step: its share of the joint batch."""
    joint = np.random.default_rng((options.seed, step)).integers(0, options.dataset_size, options.batch_size)
    return joint[rank::world]


def _average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average whose memory grows with the run, up to `decay`, so that the start is forgotten."""
    return lambda old, new, count: torch.lerp(old, new, max(1.0 - decay, 9.0 / (10.0 + float(count))))


# ---- processes -------------------------------------------------------------------------------------------------


def processes() -> PartialState:
    """The processes that train together, and this one's device: CUDA, else MPS, else the CPU.

    On CPUs accelerate has to be told of the others, or each process believes it is alone.
    """
    return PartialState(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))


def on_main_process(write: Callable[[], object]) -> None:
    """One of the processes that train together writes, and the others wait for it."""
    if processes().is_main_process:
        write()
    processes().wait_for_everyone()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Two trainings in one folder would overwrite each other. The lock goes when the process does, in any way."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "training.lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"Another training is running in {out}; wait for it, or choose another --out.") from None


# ---- a run's folder ----------------------------------------------------------------------------------------------


def check_run(options: Options) -> None:
    """Check that a run may start or resume in `options.out`, before anything is rendered or written for it.

    Raises:
        InputError: if the folder holds an earlier run and `resume` is not set, or if that is a run with other
            options or parts: only those in MAY_CHANGE may differ.
    """
    if not checkpoints(options.out):
        return
    if not options.resume:
        raise InputError(f"{options.out} holds an earlier run; continue it with --resume, or choose another --out.")
    before, now = read_options(options.out), asdict(options)
    for part, digest in now.pop("parts").items():
        if before["parts"].get(part) != digest:
            raise InputError(
                f"The run in {options.out} cannot be resumed, because the {part} it was trained with has changed; "
                "restore it, or delete the folder and train again."
            )
    for name, value in now.items():
        if name not in MAY_CHANGE and before.get(name) != value:
            raise InputError(
                f"The run in {options.out} has {name} {before.get(name)} and cannot be resumed with {value}; repeat "
                "it as it was, or start another run with another --out (--init gives it weights to start from)."
            )


def read_options(out: Path) -> dict[str, Any]:
    """The options that a run was last called with."""
    return json.loads((out / "options.json").read_text(encoding="utf-8"))


def checkpoints(out: Path) -> list[Path]:
    """The whole checkpoints of a run, the newest first."""
    return sorted((out / "checkpoints").glob("step-*[0-9]"), reverse=True)


def read_progress(checkpoint: Path) -> Progress:
    """How far a run was at a checkpoint, with what it logged until then."""
    return Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all. OSError if it cannot be written."""
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, unfinished, metadata={"format": "pt", **(metadata or {})})
        os.replace(unfinished, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written ({brief(error)}); free some space.") from error
    finally:
        unfinished.unlink(missing_ok=True)

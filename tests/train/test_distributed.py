"""Training on two processes (gloo, on this CPU) is training on one with the joint batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from ldm_course.train import loop

SCRIPT = Path(__file__).parents[1] / "tiny_training.py"


def launch(processes: int, out: Path, stop_at: int | None = None, resume: bool = False) -> int:
    arguments = [str(out), "100", "-" if stop_at is None else str(stop_at), "resume" if resume else "afresh"]
    done = on_processes(processes, str(SCRIPT), *arguments)
    if done.returncode and stop_at is None:
        pytest.fail(done.stderr[-3000:])
    return done.returncode


def on_processes(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300, env=environment)


def log(out: Path) -> list[dict[str, float]]:
    return loop.read_progress(loop.checkpoints(out)[0]).log or []


def weights(out: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(out / f"averaged-{rank}.pt", weights_only=True)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    launch(1, out)
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    launch(2, out)
    return out


def test_two_processes_have_the_loss_curve_of_one(one, two):
    assert [entry["step"] for entry in log(two)] == [50, 100]
    for a, b in zip(log(one), log(two)):
        assert a["mse"] == pytest.approx(b["mse"], rel=1e-4)
    assert log(one)[-1]["mse"] < 0.8 * log(one)[0]["mse"], "it learns, so that the curves could differ"
    assert_close(weights(one), weights(two), rtol=1e-3, atol=1e-5)
    assert_close(weights(two, 0), weights(two, 1), rtol=0, atol=0)


def test_only_the_first_process_writes(two):
    checkpoint = max((two / "checkpoints").iterdir())
    names = {path.name for path in checkpoint.iterdir()}
    assert {"model.safetensors", "optimizer.bin", "ema.safetensors", "progress.json"} <= names
    assert sum(name.startswith("model") for name in names) == 1


def test_two_processes_broken_off_and_resumed_end_the_same(two, tmp_path):
    assert launch(2, tmp_path, stop_at=50) != 0
    launch(2, tmp_path, resume=True)
    assert_close(weights(tmp_path), weights(two), rtol=0, atol=0)
    assert log(tmp_path)[-1]["mse"] == log(two)[-1]["mse"]


def test_the_command_trains_on_two_processes(tmp_path):
    """A stage asks which process it is before the loop starts; each must know of the other by then."""
    settings = ["--steps", "2", "--dataset-size", "16", "--batch-size", "4"]
    done = on_processes(2, "-m", "ldm_course.cli", "train", "vae", "--out", str(tmp_path), *settings)
    assert done.returncode == 0, done.stderr[-3000:]
    states = sorted(path.name for path in (tmp_path / "vae" / "checkpoints").glob("*/random_states_*"))
    assert states == ["random_states_0.pkl", "random_states_1.pkl"], "both trained, on one checkpoint"
    assert (tmp_path / "vae" / "weights.safetensors").exists()

"""Training through what happens to it: killed at any moment, a full disk, damaged checkpoints, a second training."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import new_model, options, regression
from torch.testing import assert_close

from ldm_course.errors import InputError
from ldm_course.train import loop

SCRIPT = Path(__file__).parents[1] / "tiny_training.py"
KILLS = int(os.environ.get("KILLS", "2"))  # make test-long: 20
ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def start(out: Path, resume: bool, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """200 steps in a process of their own, with a checkpoint after each."""
    command = [sys.executable, str(SCRIPT), str(out), "200", "-", "resume" if resume else "afresh"]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=before)


def finish(out: Path, resume: bool) -> dict[str, torch.Tensor]:
    child = start(out, resume)
    _, said = child.communicate(timeout=300)
    assert child.returncode == 0, said[-3000:]
    return torch.load(out / "averaged-0.pt", weights_only=True)


def newest_step(out: Path) -> int:
    found = loop.checkpoints(out)
    return int(found[0].name.removeprefix("step-")) if found else 0


def kill_while_it_writes(child: subprocess.Popen[str], out: Path, after: int, files: int) -> None:
    """SIGKILL, later than step `after`, as soon as a checkpoint that is being written has so many files."""
    while child.poll() is None:
        with suppress(FileNotFoundError):  # the folder has just been given its name
            writing = next((out / "checkpoints").glob("*.tmp"), None)
            if writing and newest_step(out) > after and len(list(writing.iterdir())) == files:
                child.kill()
    child.communicate(timeout=120)


@pytest.mark.slow
def test_killed_while_it_writes_it_ends_with_the_same_weights(tmp_path):
    """SIGKILL leaves no time for anything. Most of the time of this training goes into writing checkpoints."""
    whole = finish(tmp_path / "whole", resume=False)
    out, rng = tmp_path / "killed", random.Random(0)
    reached = 0
    for _ in range(KILLS):
        child = start(out, resume=reached > 0)
        kill_while_it_writes(child, out, after=reached, files=rng.randint(0, 4))
        assert child.returncode == -signal.SIGKILL, "it was over before it was killed"
        assert newest_step(out) > reached, "what was reached before is kept"
        reached = newest_step(out)
        assert json.loads((loop.checkpoints(out)[0] / "progress.json").read_text())["step"] == reached
    assert reached < 200
    assert_close(finish(out, resume=True), whole, rtol=0, atol=0)
    assert not list((out / "checkpoints").glob("*.tmp"))


@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint(tmp_path):
    """The system refuses files over 1000 bytes: the run ends with a sentence, and goes on when there is room."""

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    whole = finish(tmp_path / "whole", resume=False)
    out = tmp_path / "full"
    child = start(out, resume=False)
    while newest_step(out) < 20:
        time.sleep(0.01)
    child.kill()
    child.communicate()
    before = {path: path.read_bytes() for path in loop.checkpoints(out)[0].iterdir()}
    child = start(out, resume=True, before=no_room)
    _, said = child.communicate(timeout=300)
    assert child.returncode == 1
    assert "OSError: The checkpoint of step" in said and "free some space" in said
    assert {path: path.read_bytes() for path in loop.checkpoints(out)[0].iterdir()} == before
    assert not list((out / "checkpoints").glob("*.tmp"))
    assert_close(finish(out, resume=True), whole, rtol=0, atol=0)


def trained(out: Path, **changes: object) -> dict[str, torch.Tensor]:
    return loop.train("run", new_model(), regression(), options(out, **changes)).state_dict()


def broken_off(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        loop.train("part", new_model(), regression(stop_at=7), options(out))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "ema.safetensors", "progress.json"])
def test_of_a_damaged_checkpoint_it_goes_back_to_the_one_before(tmp_path, name):
    whole = trained(tmp_path / "whole")
    broken_off(tmp_path / "part")
    newest, _ = loop.checkpoints(tmp_path / "part")
    content = (newest / name).read_bytes()
    (newest / name).write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        resumed = trained(tmp_path / "part", resume=True)
    assert_close(resumed, whole, rtol=0, atol=0)


def test_two_damaged_checkpoints(tmp_path):
    broken_off(tmp_path)
    for checkpoint in loop.checkpoints(tmp_path):
        (checkpoint / "ema.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="No checkpoint of .* can be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(tmp_path, resume=True)
    assert len(loop.checkpoints(tmp_path)) == 2, "they are left for a second look"


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    refusals = []

    def loss_of(model: torch.nn.Module, indices: np.ndarray, step: int):
        if step == 5:
            with pytest.raises(InputError, match="Another training is running"):
                trained(tmp_path, resume=True)
            refusals.append(step)
        return regression()(model, indices, step)

    loop.train("first", new_model(), loss_of, options(tmp_path))
    assert refusals == [5] and newest_step(tmp_path) == 12
    trained(tmp_path, resume=True)  # the lock is gone

"""The training loop: resumes exactly, and only the same run; never overwrites one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training import new_model, options, regression

from ldm_course.errors import InputError
from ldm_course.train import loop


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_resumed_equals_unbroken(tmp_path):
    whole = loop.train("whole", new_model(), regression(), options(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        loop.train("part", new_model(), regression(stop_at=7), options(tmp_path / "b"))
    (tmp_path / "b" / "checkpoints" / "step-0000099.tmp").mkdir()  # an unfinished one is ignored
    resumed = loop.train("rest", new_model(), regression(), options(tmp_path / "b", resume=True))
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)
    assert loop.read_progress(loop.checkpoints(tmp_path / "b")[0]).step == 12


def test_a_finished_run_says_so_when_resumed(tmp_path, capsys):
    whole = loop.train("whole", new_model(), regression(), options(tmp_path))
    resumed = loop.train("whole", new_model(), regression(stop_at=0), options(tmp_path, resume=True))
    assert "raise --steps or --minutes" in capsys.readouterr().out
    assert torch.equal(resumed.weight, whole.weight)


def test_the_average_is_returned_not_the_last_weights(tmp_path):
    model = new_model()
    averaged = loop.train("ema", model, regression(), options(tmp_path, learning_rate=0.1))
    assert not torch.equal(averaged.weight, model.weight.cpu())


def test_the_last_two_checkpoints_remain_without_a_pickle_of_ours(tmp_path):
    loop.train("run", new_model(), regression(), options(tmp_path))
    assert [path.name for path in loop.checkpoints(tmp_path)] == ["step-0000012", "step-0000011"]
    names = {path.name for path in loop.checkpoints(tmp_path)[0].iterdir()}
    accelerates_own = {"optimizer.bin", "random_states_0.pkl"}
    assert names == {"ema.safetensors", "model.safetensors", "progress.json", *accelerates_own}


def test_an_earlier_run_is_never_overwritten(tmp_path):
    loop.train("first", new_model(), regression(), options(tmp_path))
    before = files(tmp_path)
    with pytest.raises(InputError, match="--resume"):
        loop.train("second", new_model(), regression(), options(tmp_path))
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 9}, "seed 0 and cannot be resumed with 9"),
        ({"batch_size": 4}, "batch_size 8 and cannot be resumed with 4"),
        ({"precision": "bf16"}, "precision no and"),
        ({"parts": {"VAE encoder": "0123", "scenes": "cd"}}, "the VAE encoder it was trained with has changed"),
    ],
)
def test_only_the_same_run_resumes(tmp_path, changes, named):
    parts = {"VAE encoder": "ab", "scenes": "cd"}
    with pytest.raises(KeyboardInterrupt):
        loop.train("run", new_model(), regression(stop_at=3), options(tmp_path, parts=parts))
    before = files(tmp_path)
    with pytest.raises(InputError, match=named):
        loop.train("run", new_model(), regression(), options(tmp_path, **{"parts": parts, "resume": True, **changes}))
    assert files(tmp_path) == before


def test_a_run_may_resume_for_longer_in_another_place(tmp_path):
    loop.train("run", new_model(), regression(), options(tmp_path / "a", steps=2))
    (tmp_path / "a").rename(tmp_path / "b")
    changes = {"steps": 4, "minutes": 60.0, "checkpoint_minutes": 1.0, "sample_minutes": 1.0, "resume": True}
    loop.train("run", new_model(), regression(), options(tmp_path / "b", **changes))
    assert loop.read_progress(loop.checkpoints(tmp_path / "b")[0]).step == 4
    assert json.loads((tmp_path / "b" / "options.json").read_text())["minutes"] == 60.0


def test_processes_share_the_joint_batch():
    o = options(Path("unused"), batch_size=10)
    joint = loop.batch_indices(o, 3, 0, 1)
    parts = [loop.batch_indices(o, 3, rank, 2) for rank in range(2)]
    assert sorted(np.concatenate(parts)) == sorted(joint)
    assert not np.array_equal(joint, loop.batch_indices(o, 4, 0, 1))


@pytest.mark.parametrize("is_main_process", [True, False])
def test_only_the_main_process_writes(monkeypatch, is_main_process):
    """Among three or more, the others would write at the same time: the tokenizer, for instance."""
    written, waited = [], []
    one = SimpleNamespace(is_main_process=is_main_process, wait_for_everyone=lambda: waited.append(1))
    monkeypatch.setattr(loop, "processes", lambda: one)
    loop.on_main_process(lambda: written.append(1))
    assert (len(written), len(waited)) == (int(is_main_process), 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", None), ("steps", 0), ("minutes", -1.0), ("minutes", float("nan")), ("batch_size", 0), ("seed", -1)]
    + [("precision", "int8"), ("precision", "fp16"), ("learning_rate", float("inf")), ("seed", 2**64)],
)
def test_options_out_of_range_are_named(tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=name):
        options(tmp_path, **{name: value})


def test_learning_rate_rises_stays_and_falls():
    assert loop.learning_rate_at(0, 0.0) < 0.05
    assert loop.learning_rate_at(500, 0.5) == 1.0
    assert loop.learning_rate_at(900, 0.85) == pytest.approx(0.5)
    assert loop.learning_rate_at(1000, 1.0) == 0.0

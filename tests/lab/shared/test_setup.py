"""The model that a notebook asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ldm_course as ldm
from ldm_course.lab.shared.setup import load_model
from ldm_course.model import LatentDiffusion


@pytest.fixture
def folder(model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model, standing in for the one that ships with the package."""
    ldm.save(model, tmp_path / "model", dtype=torch.float32)
    for name in ("ldm_course.io.hub", "ldm_course.lab.shared.setup"):
        monkeypatch.setattr(f"{name}.bundled_path", lambda: tmp_path / "model")
    return tmp_path / "model"


def test_the_small_model_is_the_default(folder, capsys):
    model, where = load_model()
    assert where == folder and model.device.type == "cpu" and model.dtype == torch.float32
    assert capsys.readouterr().out.startswith("Model: the small one that ships with the course. ")


def test_a_folder_runs_without_a_gpu(folder, capsys):
    model, where = load_model(str(folder))
    assert where == folder and str(folder) in capsys.readouterr().out


@pytest.mark.parametrize("gpu", [False, True])
def test_a_model_that_cannot_be_had_is_replaced_in_one_line(gpu, folder, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("ldm_course.lab.shared.setup.load", unreachable)
    _, where = load_model("stable-diffusion-v1-5/stable-diffusion-v1-5")
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("Going on with the small model.") and ("GPU" if not gpu else "hub") in first
    assert second.startswith("Model: the small one") and where == folder


def unreachable(name=None, **settings):
    if name is None:
        return ldm.load(**settings)
    raise ldm.InputError("The hub cannot be reached.")

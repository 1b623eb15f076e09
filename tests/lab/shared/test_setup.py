"""The model that a notebook asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ldm_course as ldm
from ldm_course.lab.shared import setup


@pytest.fixture
def folder(model, tmp_path, monkeypatch) -> Path:
    """A saved model, standing in for the one that ships with the package."""
    ldm.save(model, tmp_path / "model", dtype=torch.float32)
    for name in ("ldm_course.io.hub", "ldm_course.lab.shared.setup"):
        monkeypatch.setattr(f"{name}.bundled_path", lambda: tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("named", [False, True])
def test_the_small_model_is_the_default_and_a_folder_needs_no_gpu(named, folder, capsys):
    model, where = setup.load_model(*([str(folder)] if named else []))
    assert where == folder and model.device.type == "cpu" and model.dtype == torch.float32
    assert (str(folder) if named else "the small one that ships with the course") in capsys.readouterr().out


@pytest.mark.parametrize("gpu", [False, True])
def test_a_model_that_cannot_be_had_is_replaced_in_one_line(gpu, folder, capsys, monkeypatch):
    def unreachable(name=None, **settings):
        if name is None:
            return ldm.load(**settings)
        raise ldm.InputError("The hub cannot be reached.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(setup, "load", unreachable)
    _, where = setup.load_model("stable-diffusion-v1-5/stable-diffusion-v1-5")
    first, second = capsys.readouterr().out.splitlines()
    assert ("hub" if gpu else "GPU") in first and "small" in second and where == folder

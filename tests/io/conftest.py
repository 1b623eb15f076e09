"""Folders for the tests of files: a copy of the hub's small one, and the tests' model saved by us."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from model_folders import TINY

from ldm_course.io.save import save
from ldm_course.model import LatentDiffusion


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the hub's folder, to change."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny-sd15"))


@pytest.fixture(scope="session")
def saved(model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' tiny model, saved by us."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(model, folder, torch.float32)
    return folder

"""Frames of a loop on the tiny model, and a display that records."""

from __future__ import annotations

import pytest
from helpers import noise

import ldm_course as ldm
from ldm_course.lab.shared import plots
from ldm_course.model import LatentDiffusion


@pytest.fixture(scope="session")
def frames(model: LatentDiffusion) -> list[plots.Frame]:
    context, empty = model.embed(["a dog", ""]).chunk(2)
    timesteps = model.schedule.timesteps(4)
    states = ldm.denoise(model, noise(1, 4, 8, 8), context, timesteps, negative_context=empty, guidance_scale=3)
    return plots.trajectory(model, list(states))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict, dict]]:
    """What was displayed: pairs of data and metadata."""
    calls: list[tuple[dict, dict]] = []

    def display(bundle, raw, metadata=None):
        assert raw
        calls.append((bundle, metadata or {}))

    for name in ("plots", "widgets", "source"):
        monkeypatch.setattr(f"ldm_course.lab.shared.{name}.display", display)
    return calls

"""Cached training data: computed once, by the code and the weights that are there now."""

from __future__ import annotations

import pytest
import torch
from tiny_training import options
from torch import nn

from ldm_course.train import data, loop

PARTS = {"scenes": "aa", "VAE encoder": "bb", "text encoder": "cc"}


def test_cached_computes_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": torch.arange(3.0)}

    o = options(tmp_path, parts=PARTS)
    for _ in range(2):
        assert data.cached(tmp_path, "latents", o, ("VAE encoder",), compute)["x"].tolist() == [0, 1, 2]
    assert len(calls) == 1 and [path.name for path in tmp_path.iterdir()] == ["latents-0-100-aa-bb.safetensors"]


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": {**PARTS, "scenes": "dd"}},
        {"parts": {**PARTS, "VAE encoder": "dd"}},
        {"seed": 1},
        {"dataset_size": 7},
    ],
)
def test_cached_computes_again_for_another_source(tmp_path, changes):
    old = data.cached(
        tmp_path, "latents", options(tmp_path, parts=PARTS), ("VAE encoder",), lambda: {"x": torch.zeros(1)}
    )
    o = options(tmp_path, **{"parts": PARTS, **changes})
    new = data.cached(tmp_path, "latents", o, ("VAE encoder",), lambda: {"x": torch.ones(1)})
    assert (old["x"].item(), new["x"].item()) == (0, 1)


def test_digest_is_of_the_weights():
    torch.manual_seed(0)
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert data.digest(one) != data.digest(other)
    other.load_state_dict(one.state_dict())
    assert data.digest(one) == data.digest(other)


def test_tensors_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.safetensors"
    loop.save_tensors({"x": torch.ones(2, 3).T}, path)  # not contiguous
    before = path.read_bytes()
    with pytest.raises(Exception, match="(?i)key|str"):
        loop.save_tensors({1: torch.ones(1)}, path)  # type: ignore[dict-item]
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]

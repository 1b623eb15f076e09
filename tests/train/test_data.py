"""Cached training data: computed once, by the code and the weights that are there now."""

from __future__ import annotations

import pytest
import torch
from tiny_training import options
from torch import nn

from ldm_course.train import data, loop

PARTS = {"scenes": "aa", "VAE encoder": "bb", "text encoder": "cc"}


def latents(folder, value, **changes) -> float:
    o = options(folder, **{"parts": PARTS, **changes})
    return data.cached(folder, "latents", o, ("VAE encoder",), lambda: {"x": torch.tensor([value])})["x"].item()


def test_cached_computes_once(tmp_path):
    assert (latents(tmp_path, 0.0), latents(tmp_path, 1.0)) == (0, 0)
    assert (latents(tmp_path, 2.0, parts={**PARTS, "text encoder": "dd"})) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["latents-0-100-aa-bb.safetensors"]


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
    assert (latents(tmp_path, 0.0), latents(tmp_path, 1.0, **changes)) == (0, 1)


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

"""Proportions, distances and test scenes."""

from __future__ import annotations

import pytest
import torch

from ldm_course.evaluate import metrics
from ldm_course.evaluate.metrics import Share
from ldm_course.scenes import HELD_OUT, is_held_out


def test_interval_is_wilsons():
    low, high = Share(75, 100).interval()
    assert (round(low, 3), round(high, 3)) == (0.657, 0.825)
    assert Share(10, 10).interval()[1] == pytest.approx(1.0)
    assert Share(0, 10).interval()[0] == pytest.approx(0.0)
    assert str(Share(75, 100)) == " 75.0%  (75/100, 95%: 65.7% to 82.5%)"


def test_all_right_counts_images_without_a_mistake():
    truth = [{"animal": "dog", "place": "city"}] * 3
    found = [truth[0], {"animal": "dog", "place": "snow"}, truth[0]]
    assert metrics.all_right(found, truth) == Share(2, 3)


def test_test_scenes_are_held_out_as_asked():
    assert all(is_held_out(scene) for scene in metrics.test_scenes(50, 0, True))
    assert not any(is_held_out(scene) for scene in metrics.test_scenes(50, 0, False))
    assert {"animal": "dog", "accessory": "glasses"} in HELD_OUT


def test_psnr_of_a_known_error():
    x = torch.zeros(2, 3, 4, 4)
    assert metrics.psnr(x, x + 0.2).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)  # a tenth of the range


def test_distances_of_thumbnails():
    x = torch.rand(4, 12)
    assert metrics.nearest(x[:1], x).item() == pytest.approx(0.0, abs=1e-3)
    black_and_grey = torch.tensor([-1.0, 0.0])[:, None, None, None].expand(2, 3, 128, 128)
    assert metrics.mean_distance(black_and_grey) == pytest.approx(0.5)  # half of the range of a pixel


def test_the_frechet_distance_is_that_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20_000, 3, generator=generator)
    assert metrics.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet(a, b) < 0.01
    assert metrics.frechet(a, 2 * b + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(25 + 3 * (2 - 1) ** 2, rel=0.02)

"""Confidence intervals of a mean."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, one_sentence
from torch.testing import assert_close

from ldm_course.lab.shared.measure import interval


def test_intervals_are_student_s():
    mean, half = interval(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    assert_close(mean, torch.tensor([2.0, 2.0]))
    assert_close(half, torch.tensor([12.7062047, 0.0]))
    assert interval(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), dim=0)[0].tolist() == [1.5, 2.5]
    with one_sentence("2 values", "1"):
        interval(torch.ones(1))


@pytest.mark.parametrize("count", [4, 12, 40, 400])
def test_intervals_hold_the_mean_in_95_of_100_trials(count):
    values = 3 + noise(4000, count)
    mean, half = interval(values)
    assert ((mean - 3).abs() < half).float().mean() == pytest.approx(0.95, abs=0.01)

"""GroupNorm by hand, fused, and torch's own are one and the same."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, relative_error

from ldm_course.groupnorm import GroupNorm, group_norm_by_hand

SHAPES = [  # b, c and any number of other sides; groups
    ((1, 4, 5, 7), 1),
    ((3, 12, 8, 8), 3),
    ((2, 32, 2, 3), 32),
    ((2, 35, 9, 4), 7),
    ((2, 64, 16, 16), 32),
    ((2, 6), 3),
    ((2, 6, 10), 3),
    ((2, 6, 3, 4, 5), 3),
]


@pytest.mark.parametrize("shape, groups", SHAPES)
@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_by_hand_equals_fused_equals_torch(shape, groups, eps):
    x, c = 3 * noise(*shape) + 5, shape[1]
    given = [x, 1 + 0.3 * noise(c, seed=1), noise(c, seed=2)]
    before = [tensor.clone() for tensor in given]
    _, weight, bias = given
    ours, theirs = GroupNorm(groups, c, eps), torch.nn.GroupNorm(groups, c, eps)
    for module in (ours, theirs):
        module.load_state_dict({"weight": weight, "bias": bias}, strict=True)
    assert torch.equal(ours(x), theirs(x))
    assert relative_error(group_norm_by_hand(x, groups, weight, bias, eps), theirs(x)) <= 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, given))


def test_eps_is_used():
    """For nearly constant features eps decides the result; 1e-6 and 1e-5 must differ, by hand as in torch."""
    x = 5 + 1e-3 * noise(1, 4, 6, 6)
    results = []
    for eps in (1e-6, 1e-5):
        results.append(group_norm_by_hand(x.double(), 2, torch.ones(4), torch.zeros(4), eps))
        assert relative_error(results[-1], torch.nn.functional.group_norm(x.double(), 2, eps=eps)) <= 1e-9
    assert relative_error(*results) > 0.5

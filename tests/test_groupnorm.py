"""GroupNorm by hand, fused, and torch's own are one and the same."""

from __future__ import annotations

import pytest
import torch
from helpers import noise, relative_error

from ldm_course.groupnorm import GroupNorm, group_norm_by_hand

SHAPES = [
    (1, 4, 5, 7, 1),
    (3, 12, 8, 8, 3),
    (2, 32, 2, 3, 32),
    (2, 35, 9, 4, 7),
    (2, 64, 16, 16, 32),
    (2, 6, 5, 5, 6),
]


def weights(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return 1 + 0.3 * noise(channels, seed=1), noise(channels, seed=2)


@pytest.mark.parametrize("b, c, h, w, groups", SHAPES)
@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_by_hand_equals_fused_equals_torch(b, c, h, w, groups, eps):
    x = 3 * noise(b, c, h, w) + 5
    weight, bias = weights(c)
    ours, theirs = GroupNorm(groups, c, eps), torch.nn.GroupNorm(groups, c, eps)
    for module in (ours, theirs):
        module.load_state_dict({"weight": weight, "bias": bias}, strict=True)
    assert torch.equal(ours(x), theirs(x))
    assert relative_error(group_norm_by_hand(x, groups, weight, bias, eps), theirs(x)) <= 1e-5


def test_eps_is_used():
    """For nearly constant features eps decides the result; 1e-6 and 1e-5 must differ, by hand as in torch."""
    x = 5 + 1e-3 * noise(1, 4, 6, 6)
    ones, zeros = torch.ones(4), torch.zeros(4)
    results = []
    for eps in (1e-6, 1e-5):
        results.append(group_norm_by_hand(x.double(), 2, ones, zeros, eps))
        assert relative_error(results[-1], torch.nn.functional.group_norm(x.double(), 2, eps=eps)) <= 1e-9
    assert relative_error(*results) > 0.5


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 10), (2, 6, 3, 4, 5)])
def test_any_number_of_dimensions(shape):
    x = noise(*shape)
    weight, bias = weights(6)
    assert relative_error(
        group_norm_by_hand(x, 3, weight, bias, 1e-5), torch.nn.functional.group_norm(x, 3, weight, bias, 1e-5)
    ) <= 1e-5  # fmt: skip


def test_what_is_normalised():
    """Each image and group has mean 0 and variance 1 over its channels and all positions; images are separate."""
    x = 2 * noise(3, 8, 16, 16) - 1
    y = group_norm_by_hand(x, 2, torch.ones(8), torch.zeros(8), 1e-6)
    groups = y.reshape(3, 2, -1)
    torch.testing.assert_close(groups.mean(-1), torch.zeros(3, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(groups.var(-1, unbiased=False), torch.ones(3, 2), atol=1e-5, rtol=0)
    assert y[:, 0].mean().abs() > 1e-3  # a single channel is not normalised
    torch.testing.assert_close(group_norm_by_hand(x[1:2], 2, torch.ones(8), torch.zeros(8), 1e-6), y[1:2])


def test_input_is_not_changed():
    x, (weight, bias) = noise(2, 8, 4, 4), weights(8)
    before = [tensor.clone() for tensor in (x, weight, bias)]
    group_norm_by_hand(x, 4, weight, bias, 1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, weight, bias)))


def test_groups_must_divide_channels():
    with pytest.raises(ValueError, match="10.* divisible by .*4"):
        GroupNorm(4, 10, 1e-5)

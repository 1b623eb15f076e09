"""The exercise of notebook 03's first half."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.groupnorm import group_norm_by_hand
from ldm_course.lab.checks.verdict import RIGHT, Verdict, compare, plugged

ScaleAndShift = Callable[[Tensor, int, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def scale_and_shift(yours: ScaleAndShift, model: LatentDiffusion) -> Verdict:
    """Exercise 1: GroupNorm as one scale and one shift per channel; first alone, then in the real pipeline."""

    def applied(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor | None:
        answer = yours(x, groups, weight, bias, eps)
        if answer is None or answer is Ellipsis:
            return None
        b_c = tuple(x.shape[:2])
        if not isinstance(answer, (tuple, list)) or not all(isinstance(part, Tensor) for part in answer):
            raise ValueError("return two tensors, scale and shift")
        shapes = [tuple(part.shape) for part in answer]
        if shapes != [b_c, b_c]:
            raise ValueError(f"return two tensors, scale and shift, (b, c) each, here {b_c}; yours are {shapes}")
        scale, shift = answer
        return scale[:, :, None, None] * x + shift[:, :, None, None]

    mistakes = [
        (
            lambda x, g, w, b, e: _normalised(x, g, e) * _wide(w),
            "bias is left out of the shift.",
        ),
        (
            lambda x, g, w, b, e: _normalised(x, g, e) + _wide(b),
            "weight is left out. It belongs to the scale, and so to what is taken off in the shift, too.",
        ),
        (
            lambda x, g, w, b, e: x * _wide(w) / _std(x, g, e) + _wide(b),
            "The mean is not taken off: the shift is bias - scale * mean.",
        ),
        (
            lambda x, g, w, b, e: x * _wide(w) / _std(x, g, e) + _wide(b) - _mean(x, g),
            "What is taken off in the shift is the mean after scaling: scale * mean, not mean.",
        ),
        (
            lambda x, g, w, b, e: x * _wide(w) / _std(x, g, e) + _wide(b) + _mean(x, g) * _wide(w) / _std(x, g, e),
            "The mean goes in with the wrong sign: the shift is bias - scale * mean.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) / _std(x, g, e) ** 2 * _wide(w) + _wide(b),
            "It divides by the variance; the root is missing.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) / (_std(x, g, 0.0) + e) * _wide(w) + _wide(b),
            "eps is added to the standard deviation; it belongs under the root, to the variance.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) / _std(x, g, e, correction=1) * _wide(w) + _wide(b),
            "It divides the sum of squares by m - 1; here it is m (torch: unbiased=False, or correction=0).",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, x.shape[1], w, b, e),
            "Each channel has statistics of its own: that is InstanceNorm. All channels of a group share theirs.",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, 1, w, b, e),
            "All channels share one mean and one variance: num_groups is left out.",
        ),
        (
            _interleaved,
            "The groups are interleaved: channels 0, g, 2g, ... share one. A group is a run of neighbours.",
        ),
        (
            _over_the_batch,
            "The statistics are taken over the whole batch; each picture has its own.",
        ),
    ]
    x, weight, bias = _random()
    cases = [(x, groups, weight, bias, 1e-5) for groups in (2, 3, 6)] + [(0.003 * x, 2, weight, bias, 1e-5)]
    verdict = compare(applied, group_norm_by_hand, cases, mistakes)
    return plugged(model, GroupNorm=_as_module(applied)) if verdict.status == RIGHT else verdict


def _as_module(function: Callable[[Tensor, int, Tensor, Tensor, float], Tensor | None]) -> type[nn.Module]:
    """A GroupNorm that computes with the function."""

    class Yours(nn.Module):
        def __init__(self, num_groups: int, num_channels: int, eps: float):
            super().__init__()
            self.num_groups, self.eps = num_groups, eps
            self.weight = nn.Parameter(torch.ones(num_channels))
            self.bias = nn.Parameter(torch.zeros(num_channels))

        def forward(self, x: Tensor) -> Tensor | None:
            return function(x, self.num_groups, self.weight, self.bias, self.eps)

    return Yours


def _wide(per_channel: Tensor) -> Tensor:
    return per_channel[:, None, None]


def _mean(x: Tensor, groups: int) -> Tensor:
    """Each group's mean, at every channel: (b, c, 1, 1)."""
    means = x.unflatten(1, (groups, -1)).mean(dim=(2, 3, 4))  # (b, g)
    return means.repeat_interleave(x.shape[1] // groups, dim=1)[:, :, None, None]


def _std(x: Tensor, groups: int, eps: float, correction: int = 0) -> Tensor:
    variances = x.unflatten(1, (groups, -1)).var(dim=(2, 3, 4), correction=correction)
    return (variances + eps).sqrt().repeat_interleave(x.shape[1] // groups, dim=1)[:, :, None, None]


def _normalised(x: Tensor, groups: int, eps: float) -> Tensor:
    return (x - _mean(x, groups)) / _std(x, groups, eps)


def _interleaved(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    order = torch.arange(x.shape[1]).view(-1, groups).T.flatten()  # 0, g, 2g, ..., 1, g + 1, ...
    back = order.argsort()
    y = group_norm_by_hand(x[:, order], groups, weight[order], bias[order], eps)
    return y[:, back]


def _over_the_batch(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    b, c = x.shape[:2]
    one = x.transpose(0, 1).reshape(1, c, b, -1)
    y = group_norm_by_hand(one, groups, weight, bias, eps)
    return y.reshape(c, *x.shape[:1], *x.shape[2:]).transpose(0, 1)


def _random() -> tuple[Tensor, Tensor, Tensor]:
    """Features whose channels and pictures have means and scales of their own, with a weight and a bias."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 6, 3, 2, generator=generator)
    x = x * (0.5 + torch.rand(2, 6, 1, 1, generator=generator)) + torch.randn(2, 6, 1, 1, generator=generator)
    return x, torch.randn(6, generator=generator), torch.randn(6, generator=generator)

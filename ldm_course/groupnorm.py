"""Group normalisation (Wu and He 2018, https://arxiv.org/abs/1803.08494), by hand and fused. Notebook 03."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def group_norm_by_hand(x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise each group of neighbouring channels to mean 0 and variance 1, then scale and shift each channel.

    The statistics are taken per image and per group, over the group's channels and *all* positions
    (Wu and He 2018, eq. 1, 2, 6 and 7): nothing is averaged over the batch, and nothing is local in space.

    Args:
        x: features, (b, c, h, w); any number of trailing dimensions works.
        num_groups: how many groups the c channels are cut into; RuntimeError if it does not divide c.
        weight, bias: one scale and one shift per channel, (c,).
        eps: added to the variance, so that a constant group does not divide by zero.
    """
    groups = x.unflatten(1, (num_groups, -1))  # (b, g, c/g, h, w)
    over = tuple(range(2, groups.dim()))
    mean = groups.mean(dim=over, keepdim=True)
    variance = groups.var(dim=over, keepdim=True, unbiased=False)
    normalised = ((groups - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
    per_channel = (1, -1) + (1,) * (x.dim() - 2)
    return normalised * weight.view(per_channel) + bias.view(per_channel)


class GroupNorm(nn.GroupNorm):
    """Group normalisation as every block of the VAE and the UNet uses it: torch's fused kernel.

    It equals `group_norm_by_hand` to float rounding (tests/test_groupnorm.py). `eps` has no default, because
    Stable Diffusion uses 1e-6 in the VAE and before the UNet's transformers, and 1e-5 elsewhere in the UNet.
    Raises ValueError if num_groups does not divide num_channels.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float):
        super().__init__(num_groups, num_channels, eps)

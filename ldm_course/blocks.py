"""The blocks that the VAE and the UNet share: residual block, attention, down- and upsampling. Notebook 02.

Attribute names are the checkpoint's keys, so that `diffusers` weights load with `strict=True`. That is why a block
that is sometimes absent stands in a ModuleList of length 0 or 1 (`downsamplers`), and `to_out` in one of length 1.
Shapes are (batch, channels, height, width), written (b, c, h, w); comments give them where they change.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ldm_course.groupnorm import GroupNorm


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them (He et al. 2016) and the time added in between; (b, c, h, w).

    Args:
        in_channels, out_channels: if they differ, a 1x1 convolution fits the shortcut.
        groups, eps: of both group norms.
        temb_channels: width of the time embedding; None in the VAE, which knows no time.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, eps: float, temb_channels: int | None = None
    ):
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(temb_channels, out_channels) if temb_channels else None
        self.norm2 = GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (b, out_channels, h, w)
        if self.time_emb_proj is not None and temb is not None:
            h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Multi-head attention, softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1), over a sequence of tokens.

    With `context` the queries come from x and the keys and values from the context (cross-attention); without it,
    all three come from x (self-attention).

    Args:
        channels: width of x, (b, n, channels), and of the result.
        heads: number of heads, which divides channels; each is channels / heads wide.
        context_channels: width of the context, (b, m, context_channels); None for self-attention.
        qkv_bias: the VAE's attention has a bias on q, k and v, the UNet's has none.
    """

    def __init__(self, channels: int, heads: int, context_channels: int | None = None, qkv_bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=qkv_bias)
        self.to_k = nn.Linear(context_channels or channels, channels, bias=qkv_bias)
        self.to_v = nn.Linear(context_channels or channels, channels, bias=qkv_bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q = self.split_heads(self.to_q(x))  # (b, heads, n, d)
        k, v = self.split_heads(self.to_k(context)), self.split_heads(self.to_v(context))  # (b, heads, m, d)
        h = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](h.transpose(1, 2).flatten(2))  # (b, n, channels)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, n, heads * d) -> (b, heads, n, d)


class Downsample(nn.Module):
    """Halve height and width with a strided 3x3 convolution.

    Args:
        asymmetric: pad only right and bottom, as the VAE does, which rounds an odd size down; otherwise pad all
            sides, as the UNet does, which rounds an odd size up.
    """

    def __init__(self, channels: int, asymmetric: bool = False):
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.asymmetric:
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)  # (b, c, h/2, w/2)


class Upsample(nn.Module):
    """Repeat each position up to the given size, twice the input's by default, then smooth with a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        x = F.interpolate(x, size=size, scale_factor=None if size else 2.0, mode="nearest")  # (b, c, 2h, 2w)
        return self.conv(x)

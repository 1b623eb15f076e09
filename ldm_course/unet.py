"""The network that predicts the noise in a latent, given the timestep and a text. Notebook 02.

The architecture is Stable Diffusion 1.x's: the UNet of Ho et al. 2020 (https://arxiv.org/abs/2006.11239,
appendix B) with the cross-attention of Rombach et al. 2022 (https://arxiv.org/abs/2112.10752, section 3.3).
Names and shapes are written as in blocks.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_course.blocks import Attention, Downsample, ResnetBlock, Upsample
from ldm_course.errors import InputError
from ldm_course.groupnorm import GroupNorm

TRANSFORMER_EPS = 1e-6  # of the group norm before a transformer; the resnets use config.norm_eps


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the UNet; the defaults are Stable Diffusion 1.5's. Names are those of diffusers' config.json.

    Args:
        block_out_channels: channels per level; every level but the last halves height and width.
        down_block_types, up_block_types: per level, with cross-attention or without; `up` starts at the smallest.
        layers_per_block: residual blocks per level on the way down; one more on the way up.
        cross_attention_dim: width of the text encoder's vectors.
        attention_head_dim: the number of *heads*, whatever its name says (in Stable Diffusion 1.x).
        sample_size: height and width of the training latents; the images' sides are 8 times that.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    attention_head_dim: int = 8
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    sample_size: int = 64

    @property
    def heads(self) -> int:
        """The number of attention heads, which diffusers calls attention_head_dim."""
        return self.attention_head_dim


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Timesteps (b,) to vectors (b, dim), dim even: cosines, then sines, of t times dim/2 frequencies.

    The frequencies fall geometrically from 1 to almost 1/10000 (Vaswani et al. 2017, section 3.5).
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t[:, None].float() * frequencies  # (b, dim/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)  # (b, dim)


class TimestepMLP(nn.Module):
    """Two linear layers that turn the sinusoids into the time embedding, which every residual block reads."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, out_channels)
        self.linear_2 = nn.Linear(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class GEGLU(nn.Module):
    """A linear layer; one half of its output gates the other half through a GELU (Shazeer 2020)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.proj = nn.Linear(in_channels, 2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Widen each position by itself to four times its channels, and narrow it again.

    `net.1` holds the place of diffusers' dropout, which does nothing at inference.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention among the positions, cross-attention to the text, feed-forward; each is added to its input."""

    def __init__(self, channels: int, heads: int, context_channels: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class TokenConv(nn.Conv2d):
    """A 1x1 convolution on tokens (b, n, c): a linear layer, 5% of a step faster, with a convolution's weights."""

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.weight.flatten(1), self.bias)


class SpatialTransformer(nn.Module):
    """The transformer block on a feature map: positions become tokens, and a shortcut goes around it."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.norm = GroupNorm(config.norm_num_groups, channels, TRANSFORMER_EPS)
        self.proj_in = TokenConv(channels, channels, 1)
        blocks = [TransformerBlock(channels, config.heads, config.cross_attention_dim)]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = TokenConv(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (b, h*w, c)
        tokens = self.proj_in(tokens)
        tokens = self.transformer_blocks[0](tokens, context)
        tokens = self.proj_out(tokens)
        return x + tokens.transpose(1, 2).reshape(x.shape)  # (b, c, h, w)


def resnet(in_channels: int, out_channels: int, config: UNetConfig) -> ResnetBlock:
    temb_channels = 4 * config.block_out_channels[0]
    return ResnetBlock(in_channels, out_channels, config.norm_num_groups, config.norm_eps, temb_channels)


class DownBlock(nn.Module):
    """One level on the way down. Each result is also a skip, which the same level on the way up reads."""

    def __init__(self, in_channels: int, out_channels: int, config: UNetConfig, attends: bool, is_last: bool):
        super().__init__()
        widths = [in_channels] + [out_channels] * (config.layers_per_block - 1)
        self.resnets = nn.ModuleList([resnet(c, out_channels, config) for c in widths])
        self.attentions = nn.ModuleList([SpatialTransformer(out_channels, config) for _ in widths if attends])
        self.downsamplers = nn.ModuleList([] if is_last else [Downsample(out_channels)])

    def forward(self, x: Tensor, temb: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for layer, block in enumerate(self.resnets):
            x = block(x, temb)
            if self.attentions:
                x = self.attentions[layer](x, context)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)  # (b, c, h/2, w/2)
            skips.append(x)
        return x, skips


class MidBlock(nn.Module):
    """Residual block, transformer, residual block, at the smallest size."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.attentions = nn.ModuleList([SpatialTransformer(channels, config)])
        self.resnets = nn.ModuleList([resnet(channels, channels, config) for _ in range(2)])

    def forward(self, x: Tensor, temb: Tensor, context: Tensor) -> Tensor:
        x = self.resnets[0](x, temb)
        x = self.attentions[0](x, context)
        return self.resnets[1](x, temb)


class UpBlock(nn.Module):
    """One level on the way up. Each residual block also reads one skip: the last one made, first."""

    def __init__(
        self, in_channels: int, out_channels: int, skips: list[int], config: UNetConfig, attends: bool, is_last: bool
    ):
        super().__init__()
        widths = [in_channels] + [out_channels] * (len(skips) - 1)
        self.resnets = nn.ModuleList([resnet(c + skip, out_channels, config) for c, skip in zip(widths, skips)])
        self.attentions = nn.ModuleList([SpatialTransformer(out_channels, config) for _ in widths if attends])
        self.upsamplers = nn.ModuleList([] if is_last else [Upsample(out_channels)])

    def forward(self, x: Tensor, skips: list[Tensor], temb: Tensor, context: Tensor) -> Tensor:
        for layer, block in enumerate(self.resnets):
            x = block(torch.cat([x, skips.pop()], dim=1), temb)  # (b, c + skip, h, w) -> (b, c, h, w)
            if self.attentions:
                x = self.attentions[layer](x, context)
        for upsample in self.upsamplers:
            x = upsample(x, size=skips[-1].shape[-2:])  # the next skip's size: 2h or, if that was odd, 2h - 1
        return x


class UNet(nn.Module):
    """Predicts the noise in x_t (or v, if the schedule says so).

    forward(x_t, t, context):
        x_t: noisy latents, (b, in_channels, h, w), any h and w.
        t: timesteps in 0 ... 999, (b,), or one for all, (1,) or an int.
        context: the text encoder's vectors, (b, 77, cross_attention_dim).
        Returns the prediction, (b, out_channels, h, w).
        Raises InputError if there are not as many texts as latents.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        channels = config.block_out_channels
        last = len(channels) - 1
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimestepMLP(channels[0], 4 * channels[0])

        self.down_blocks = nn.ModuleList()
        skip_channels = [channels[0]]
        for level, (before, after) in enumerate(zip(channels[:1] + channels, channels)):
            attends = config.down_block_types[level] == "CrossAttnDownBlock2D"
            self.down_blocks.append(DownBlock(before, after, config, attends, is_last=level == last))
            skip_channels += [after] * (config.layers_per_block + (level != last))

        self.mid_block = MidBlock(channels[-1], config)

        self.up_blocks = nn.ModuleList()
        upwards = channels[::-1]
        for level, (before, after) in enumerate(zip(upwards[:1] + upwards, upwards)):
            attends = config.up_block_types[level] == "CrossAttnUpBlock2D"
            skips = [skip_channels.pop() for _ in range(config.layers_per_block + 1)]
            self.up_blocks.append(UpBlock(before, after, skips, config, attends, is_last=level == last))

        self.conv_norm_out = GroupNorm(config.norm_num_groups, channels[0], config.norm_eps)
        self.conv_out = nn.Conv2d(channels[0], config.out_channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor | int, context: Tensor) -> Tensor:
        if len(context) != len(x_t):
            raise InputError(f"The UNet needs one text for each latent; it got {len(x_t)} and {len(context)} texts.")
        t = torch.as_tensor(t, device=x_t.device).reshape(-1)
        temb = timestep_embedding(t, self.config.block_out_channels[0])
        temb = self.time_embedding(temb.to(x_t.dtype))  # (b or 1, 4 * block_out_channels[0])

        h = self.conv_in(x_t)
        skips = [h]
        for block in self.down_blocks:
            h, new_skips = block(h, temb, context)
            skips += new_skips
        h = self.mid_block(h, temb, context)
        for block in self.up_blocks:
            h = block(h, skips, temb, context)
        return self.conv_out(F.silu(self.conv_norm_out(h)))

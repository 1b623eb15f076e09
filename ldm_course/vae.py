"""The autoencoder that turns an image into a latent 48 times smaller, and back. Notebook 01.

The architecture is Stable Diffusion's (Rombach et al. 2022, https://arxiv.org/abs/2112.10752, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_course.blocks import Attention, Downsample, ResnetBlock, Upsample
from ldm_course.groupnorm import GroupNorm

EPS = 1e-6  # of every group norm in the VAE; the UNet's resnets use 1e-5


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder; the defaults are Stable Diffusion 1.5's. Names are those of diffusers' config.json.

    Args:
        block_out_channels: channels per level; every level but the last halves height and width.
        layers_per_block: residual blocks per level of the encoder; the decoder has one more.
        scaling_factor: latents are multiplied by it, so that the UNet sees a standard deviation of about 1.
        sample_size: height and width of the training images, in pixels.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    sample_size: int = 512


def reparameterize(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """Sample N(mean, std^2) so that gradients reach mean and std (Kingma and Welling 2014, section 2.4).

    mean, std and noise ~ N(0, 1) have the same shape, and so has the result.
    """
    return mean + std * noise


@dataclass(frozen=True)
class DiagonalGaussian:
    """The posterior that the encoder predicts: one independent Gaussian per latent value.

    Args:
        mean, logvar: both (b, latent_channels, h/8, w/8). `logvar` is clamped to [-30, 20].
    """

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> DiagonalGaussian:
        """Split (b, 2c, h, w) into mean and log-variance."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """A sample, by `reparameterize`; noise ~ N(0, 1) has the mean's shape."""
        return reparameterize(self.mean, self.std, noise)

    def kl(self) -> Tensor:
        """KL(self || N(0, 1)) in nats, summed over each image's latent (Kingma and Welling 2014, app. B): (b,)."""
        terms = 0.5 * (self.mean**2 + self.logvar.exp() - 1.0 - self.logvar)
        return terms.flatten(1).sum(dim=1)


class VAEAttention(Attention):
    """Self-attention with one head over all positions of the smallest feature map, and a shortcut around it."""

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, heads=1, qkv_bias=True)
        self.group_norm = GroupNorm(groups, channels, EPS)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (b, h*w, c)
        tokens = super().forward(tokens)
        return x + tokens.transpose(1, 2).reshape(x.shape)  # (b, c, h, w)


class VAEMidBlock(nn.Module):
    """Residual block, attention, residual block, at the smallest size."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.attentions = nn.ModuleList([VAEAttention(channels, groups)])
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, groups, EPS) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        x = self.attentions[0](x)
        return self.resnets[1](x)


class EncoderBlock(nn.Module):
    """One level of the encoder: residual blocks, then half the size, except at the last level."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, is_last: bool):
        super().__init__()
        widths = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([ResnetBlock(c, out_channels, groups, EPS) for c in widths])
        self.downsamplers = nn.ModuleList([] if is_last else [Downsample(out_channels, asymmetric=True)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        for downsample in self.downsamplers:
            x = downsample(x)  # (b, c, h/2, w/2)
        return x


class DecoderBlock(nn.Module):
    """One level of the decoder: residual blocks, then twice the size, except at the last level."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, is_last: bool):
        super().__init__()
        widths = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([ResnetBlock(c, out_channels, groups, EPS) for c in widths])
        self.upsamplers = nn.ModuleList([] if is_last else [Upsample(out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        for upsample in self.upsamplers:
            x = upsample(x)  # (b, c, 2h, 2w)
        return x


class Encoder(nn.Module):
    """Images (b, 3, h, w) to (b, out_channels, h/8, w/8), for the four levels of Stable Diffusion."""

    def __init__(self, config: VAEConfig, out_channels: int):
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            [
                EncoderBlock(before, after, config.layers_per_block, groups, is_last=level == len(channels) - 1)
                for level, (before, after) in enumerate(zip(channels[:1] + channels, channels))
            ]
        )
        self.mid_block = VAEMidBlock(channels[-1], groups)
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for block in self.down_blocks:
            h = block(h)
        h = self.mid_block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Decoder(nn.Module):
    """Latents (b, latent_channels, h/8, w/8) to images (b, 3, h, w); one block more per level than the encoder."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = VAEMidBlock(channels[0], groups)
        self.up_blocks = nn.ModuleList(
            [
                DecoderBlock(before, after, config.layers_per_block + 1, groups, is_last=level == len(channels) - 1)
                for level, (before, after) in enumerate(zip(channels[:1] + channels, channels))
            ]
        )
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z.to(memory_format=torch.channels_last))  # the faster memory layout for these convolutions
        h = self.mid_block(h)
        for block in self.up_blocks:
            h = block(h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Autoencoder(nn.Module):
    """The plain autoencoder: a latent is a point, and no term of the loss arranges the points in their space."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, config.latent_channels)
        self.decoder = Decoder(config)

    def encode(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [-1, 1] to latents (b, latent_channels, h/8, w/8)."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Latents back to images, (b, 3, h, w), roughly in [-1, 1]."""
        return self.decoder(z)


class AutoencoderKL(nn.Module):
    """Stable Diffusion's variational autoencoder: the encoder predicts a Gaussian per latent value.

    Latents here are unscaled. The UNet works on `config.scaling_factor` times these; `LatentDiffusion.encode`
    multiplies, and `LatentDiffusion.decode` divides.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, 2 * config.latent_channels)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    @property
    def downscale(self) -> int:
        """Width and height of a latent cell in pixels: 8 with four levels."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Images (b, 3, h, w) in [-1, 1] to the posterior of their latents, (b, latent_channels, h/8, w/8)."""
        return DiagonalGaussian.from_moments(self.quant_conv(self.encoder(x)))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (b, latent_channels, h/8, w/8) to images (b, 3, h, w), roughly in [-1, 1]."""
        return self.decoder(self.post_quant_conv(z))

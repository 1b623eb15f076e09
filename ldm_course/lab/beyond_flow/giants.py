"""The networks of Stable Diffusion 3 and Flux, from their published configs; on the meta device, shapes alone."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from transformers import T5Config, T5EncoderModel

from ldm_course.unet import UNet, UNetConfig


def networks() -> dict[str, Any]:
    """By name, each an nn.Module. Almost 20 billion weights: call it under `torch.device("meta")`."""
    t5 = T5Config(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    sd3 = SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )
    return {
        "Stable Diffusion 1.5, UNet": UNet(UNetConfig()),
        "Stable Diffusion 3 medium, transformer": sd3,
        "Flux.1 dev, transformer": FluxTransformer2DModel(guidance_embeds=True),  # and the defaults of diffusers
        "both, text encoder T5-XXL": T5EncoderModel(t5),
    }


def autoencoder() -> AutoencoderKL:
    """The autoencoder, of one shape in both."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=16,
    )

"""Train the autoencoder: images to 4 channels of 16x16, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ldm_course.images import pixels_to_tensor, to_pil
from ldm_course.scenes import contact_sheet
from ldm_course.train import data, loop
from ldm_course.vae import AutoencoderKL, DiagonalGaussian, VAEConfig

CONFIG = VAEConfig(
    block_out_channels=(16, 32, 96, 128), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0, sample_size=128
)
SQUARED_WEIGHT = 10.0  # of the squared error: it then pulls as hard as the absolute one at an error of 0.05
KL_WEIGHT = 1e-4  # on the KL in nats against those errors summed over an image's values


class ReconstructionLoss(nn.Module):
    """The autoencoder and its loss in one forward pass, so that wrappers of the model see every call."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of images (b, 3, h, w) in [-1, 1], and PSNR in dB and KL in nats to log."""
        posterior = self.vae.encode(x)
        posterior = DiagonalGaussian(posterior.mean.float(), posterior.logvar.float())
        decoded = self.vae.decode(posterior.sample(torch.randn_like(posterior.mean))).float()
        absolute, squared = (decoded - x).abs().mean(), (decoded - x).square().mean()
        kl = posterior.kl().mean()
        loss = absolute + SQUARED_WEIGHT * squared + KL_WEIGHT * kl / x[0].numel()
        psnr = -10 * torch.log10(squared.detach() / 4)
        return loss, {"psnr": psnr, "kl": kl.detach()}


def new_vae() -> AutoencoderKL:
    """An autoencoder with random weights, almost noiseless: the decoder first has to learn what the latent says."""
    vae = AutoencoderKL(CONFIG)
    with torch.no_grad():
        vae.quant_conv.bias[CONFIG.latent_channels :] = -6.0  # type: ignore[index]
    return vae


def train_vae(options: loop.Options, data_folder: Path, vae: AutoencoderKL) -> AutoencoderKL:
    """Train on the rendered scenes, then normalise the latents."""
    images = data.training_images(data_folder, "train", options)
    return normalise_latents(_train("vae", vae, options, images), images[:2000])


def train_decoder(options: loop.Options, data_folder: Path, vae: AutoencoderKL) -> AutoencoderKL:
    """Train the decoder only: the latents stay as they are, and so a UNet that was trained on them stays right.

    (The `sd-vae-ft-mse` decoder for Stable Diffusion was made in this way.)
    """
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    return _train("decoder", vae, options, data.training_images(data_folder, "train", options))


def _train(name: str, vae: AutoencoderKL, options: loop.Options, images: np.ndarray) -> AutoencoderKL:
    device = loop.processes().device

    def loss_of(model: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return model(pixels_to_tensor(images[indices]).to(device))

    def sample(model: ReconstructionLoss, file: Path) -> None:
        x = pixels_to_tensor(images[:12])
        decoded = model.vae.decode(model.vae.encode(x.to(device)).mean).cpu()
        contact_sheet(to_pil(torch.cat([x, decoded])), len(x)).save(file)

    return loop.train(name, ReconstructionLoss(vae), loss_of, options, sample).vae


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, images: np.ndarray) -> AutoencoderKL:
    """The same autoencoder, with latent channels of mean 0 and equal spread over `images`, and their scale measured.

    Stable Diffusion's format has one number for this, `scaling_factor` = 1 / std. What is left, a mean and a relative
    spread per channel, is folded into the two 1x1 convolutions around the latent; reconstructions do not change.
    """
    means = torch.cat([vae.encode(pixels_to_tensor(images[i : i + 50])).mean for i in range(0, len(images), 50)])
    mean, std = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    overall = std.square().mean().sqrt()
    spread, c = std / overall, len(std)
    folded = AutoencoderKL(replace(vae.config, scaling_factor=round(1 / overall.item(), 5)))
    folded.load_state_dict(vae.state_dict())
    before, after = folded.quant_conv, folded.post_quant_conv
    assert before.bias is not None and after.bias is not None
    before.weight[:c] /= spread[:, None, None, None]
    before.bias[:c] = (before.bias[:c] - mean) / spread
    before.bias[c:] -= 2 * spread.log()
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= spread[None, :, None, None]
    return folded.eval()

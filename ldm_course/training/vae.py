"""Train the autoencoder: pictures through 4 channels of 16x16, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ldm_course.training import data, loop
from ldm_course.vae import AutoencoderKL, DiagonalGaussian, VAEConfig

CONFIG = VAEConfig(
    block_out_channels=(16, 32, 96, 128), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0, sample_size=128
)
KL_WEIGHT = 1e-4  # on the KL in nats against the squared and absolute error summed over a picture's values


class Trainer(nn.Module):
    """Reconstruction and loss in one forward pass, so that wrappers of the model see every call."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.vae.encode(x)
        posterior = DiagonalGaussian(posterior.mean.float(), posterior.logvar.float())
        decoded = self.vae.decode(posterior.sample(torch.randn_like(posterior.mean))).float()
        absolute, squared = (decoded - x).abs().mean(), (decoded - x).square().mean()
        kl = posterior.kl().mean()
        loss = absolute + squared + KL_WEIGHT * kl / x[0].numel()
        psnr = -10 * torch.log10(squared.detach() / 4)
        return loss, {"psnr": psnr, "kl": kl.detach()}


def train_vae(options: loop.Options, data_folder: Path) -> AutoencoderKL:
    """Train on the rendered scenes; writes checkpoints and sample pictures into options.out."""
    torch.manual_seed(options.seed)
    images = data.pictures(data_folder, "train", options.seed, options.pictures)

    def loss_of(model: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(model.parameters()).device
        return model(data.to_tensor(images[np.sort(indices)]).to(device))

    def sample(model: nn.Module, file: Path) -> None:
        x = data.to_tensor(images[:12])
        decoded = model.vae.decode(model.vae.encode(x.to(next(model.parameters()).device)).mean)
        rows = [torch.cat(list(part), dim=2) for part in (x, decoded.cpu())]
        sheet = ((torch.cat(rows, dim=1) + 1) * 127.5).clamp(0, 255).byte()
        Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(file)

    vae = AutoencoderKL(CONFIG)
    with torch.no_grad():  # start almost noiseless: the decoder first has to learn what the latent says
        vae.quant_conv.bias[CONFIG.latent_channels :] = -6.0
    trained = loop.train("vae", Trainer(vae), loss_of, options, sample)
    return trained.vae

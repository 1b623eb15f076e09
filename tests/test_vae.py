"""Our autoencoder is diffusers' AutoencoderKL: same keys, same shapes, same latents, same images."""

from __future__ import annotations

import diffusers
import pytest
import torch
from helpers import noise, our_vae, relative_error, tiny_vae

from ldm_course.vae import Autoencoder, AutoencoderKL, DiagonalGaussian, VAEConfig

CONFIGS = {
    "four levels": {},
    "two levels, three layers": {"block_out_channels": (8, 16), "layers_per_block": 3},
    "three levels, odd groups": {"block_out_channels": (15, 30, 15), "layers_per_block": 2, "norm_num_groups": 5},
    "one group, three latent channels": {
        "block_out_channels": (6, 10),
        "layers_per_block": 2,
        "norm_num_groups": 1,
        "latent_channels": 3,
    },
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(
    "b, h, w", [(1, 32, 32), (3, 48, 32), (2, 40, 24), (1, 45, 38)]
)  # the last two: 5 cells high
def test_same_moments_and_images_as_diffusers(config, b, h, w):
    """A side that does not divide, such as 45 pixels, gives the latent that it gives in diffusers."""
    theirs = tiny_vae(**config)
    ours = our_vae(theirs)
    x = noise(b, 3, h, w).clamp(-1, 1)
    posterior, reference = ours.encode(x), theirs.encode(x).latent_dist
    assert relative_error(posterior.mean, reference.mean) <= 1e-5
    assert relative_error(posterior.logvar, reference.logvar) <= 1e-5
    assert relative_error(posterior.std, reference.std) <= 1e-5
    z = noise(*posterior.mean.shape, seed=1)
    assert z.shape[-2:] == (h // ours.downscale, w // ours.downscale)
    assert relative_error(posterior.sample(z), reference.sample(torch.Generator().manual_seed(1))) <= 1e-5
    assert relative_error(ours.decode(z), theirs.decode(z).sample) <= 1e-5


def test_kl_is_torchs():
    posterior = DiagonalGaussian(noise(2, 4, 3, 3), noise(2, 4, 3, 3, seed=1))
    q = torch.distributions.Normal(posterior.mean, posterior.std)
    reference = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    assert relative_error(posterior.kl(), reference) <= 1e-5
    assert DiagonalGaussian(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3)).kl().item() == 0


def test_logvar_is_clamped():
    posterior = DiagonalGaussian.from_moments(torch.full((1, 8, 2, 2), 100.0))
    assert posterior.logvar.max() == 20 and posterior.mean.max() == 100
    assert DiagonalGaussian.from_moments(torch.full((1, 8, 2, 2), -100.0)).logvar.min() == -30


def test_plain_autoencoder_has_the_same_sizes():
    config = VAEConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
    autoencoder = Autoencoder(config).eval()
    z = autoencoder.encode(noise(2, 3, 32, 16))
    assert z.shape == (2, 4, 4, 2)
    assert autoencoder.decode(z).shape == (2, 3, 32, 16)


def test_full_size_keys_and_shapes():
    channels = (128, 256, 512, 512)
    with torch.device("meta"):
        ours = AutoencoderKL(VAEConfig())
        theirs = diffusers.AutoencoderKL(
            block_out_channels=channels,
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    shapes = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    assert shapes == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert sum(weight.numel() for weight in ours.parameters()) == 83_653_863
    assert ours.downscale == 8

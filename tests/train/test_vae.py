"""The autoencoder's training: what the decoder stage leaves alone, and normalised latents."""

from __future__ import annotations

import numpy as np
import torch
from tiny_training import options

from ldm_course.images import pixels_to_tensor
from ldm_course.scenes import training_scene
from ldm_course.train import vae
from ldm_course.vae import AutoencoderKL, VAEConfig


def test_normalised_latents_have_unit_spread_and_the_same_images():
    torch.manual_seed(0)
    config = VAEConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0)
    before = AutoencoderKL(config).eval()
    images = np.stack([np.asarray(training_scene(0, i).render(64)) for i in range(8)])
    after = vae.normalise_latents(before, images)
    x = pixels_to_tensor(images)
    with torch.no_grad():
        old, new = before.encode(x), after.encode(x)
        assert torch.allclose(before.decode(old.mean), after.decode(new.mean), atol=1e-4)
        old_noise, new_noise = ((p.std / p.mean.std((0, 2, 3))[:, None, None]).mean((0, 2, 3)) for p in (old, new))
    assert torch.allclose(old_noise, new_noise, rtol=1e-3)  # the posterior's width, relative to the latents' spread
    latents = new.mean * after.config.scaling_factor
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-2)


def test_the_decoder_stage_leaves_the_encoder_alone(tmp_path):
    torch.manual_seed(0)
    before = vae.new_vae()
    weights = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    o = options(tmp_path / "decoder", steps=2, batch_size=2, dataset_size=4, sample_minutes=1e-9)
    after = vae.train_decoder(o, tmp_path / "data", before).state_dict()
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, weights[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert {path.name for path in tmp_path.glob("decoder/sample-*")} == {"sample-0000001.png", "sample-0000002.png"}

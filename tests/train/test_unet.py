"""The UNet's training set and loss."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from tiny_training import options
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course.images import pixels_to_tensor
from ldm_course.loss import diffusion_loss
from ldm_course.scenes import training_scene
from ldm_course.train import unet
from ldm_course.train.unet import CAPTIONS_PER_IMAGE, DROPOUT, MIN_SNR_GAMMA, SCHEDULE, Examples


def test_the_loss_is_diffusion_loss():
    torch.manual_seed(0)
    net, x0, context = unet.UNet(unet.CONFIG), torch.randn(2, 4, 16, 16), torch.randn(2, 77, 128)
    torch.manual_seed(1)
    ours = unet.unet_loss(net, x0, context)
    torch.manual_seed(1)
    assert_close(ours, diffusion_loss(net, SCHEDULE, x0, context, min_snr_gamma=MIN_SNR_GAMMA), rtol=1e-5, atol=1e-6)
    ours.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_batch_pairs_latents_with_their_own_captions_or_none():
    torch.manual_seed(0)
    n = 50
    means = torch.arange(n).float()[:, None, None, None].expand(n, 4, 2, 2)
    owner = torch.arange(n * CAPTIONS_PER_IMAGE).float() // CAPTIONS_PER_IMAGE
    contexts = torch.cat([owner, torch.tensor([-1.0])])[:, None, None].expand(-1, 77, 8).half()
    examples = Examples(means, torch.full_like(means, 0.01), contexts)
    indices = np.random.default_rng(0).integers(0, n, 4000)
    x0, context = examples.batch(indices)
    assert context.dtype == torch.float32
    who = context[:, 0, 0]
    dropped = who == -1
    assert abs(dropped.float().mean() - DROPOUT) < 0.02
    assert torch.equal(who[~dropped], torch.from_numpy(indices).float()[~dropped])
    assert_close(x0[:, 0, 0, 0], torch.from_numpy(indices).float(), rtol=0, atol=0.1)
    assert x0.std(dim=(1, 2, 3)).mean() > 0.005, "posteriors are sampled, not only their means"


def test_encoded_images_and_captions_are_those_of_the_model():
    model = ldm.load(device="cpu")
    images = np.stack([np.asarray(training_scene(0, i).render()) for i in range(2)])
    latents = unet.encode_images(model.vae, images)
    assert_close(latents["means"], model.encode(pixels_to_tensor(images)), rtol=0, atol=0.1)  # bfloat16
    own, others, shares = unet.image_captions(0, 5)
    assert len(own) == len(others) == len(shares) == 5 * CAPTIONS_PER_IMAGE
    contexts = unet.embed_captions(model, own, others, shares)["contexts"]
    assert_close(contexts[-1:], model.embed([""]).half())
    for context, one, other, share in zip(contexts, own, others, shares):
        mixed = share * model.embed([one]) + (1 - share) * model.embed([other])
        assert_close(context[None], mixed.half(), rtol=1e-3, atol=1e-3)
        assert (one == other) == (share == 1), "a whole animal has one caption"
    assert (shares == 1).sum() == 3 * CAPTIONS_PER_IMAGE, "two images of five are chimeras"


def test_training_samples_with_the_averaged_unet(tmp_path, monkeypatch):
    monkeypatch.setattr(unet, "SAMPLE_PROMPTS", ["a dog", "a cat"])
    parts = {"scenes": "a", "VAE encoder": "b", "text encoder": "c", "tokenizer": "d"}
    o = options(tmp_path / "unet", steps=1, batch_size=2, dataset_size=4, sample_minutes=1e-9, parts=parts)
    model = ldm.load(device="cpu")
    model.unet.requires_grad_(True)
    unet.train_unet(o, tmp_path / "data", model)
    assert Image.open(tmp_path / "unet" / "sample-0000001.png").size == (6 * 132 + 4, 136)
    assert {path.name for path in (tmp_path / "data").glob("*.safetensors")} == {
        "latents-0-4-a-b.safetensors",
        "contexts-0-4-a-c-d.safetensors",
    }

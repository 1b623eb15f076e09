"""The model's three ways in and out: embed, encode, decode. Scale, device and dtype are dealt with there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import noise, relative_error
from torch import nn

from ldm_course.model import encode_prompt


@pytest.fixture
def images():
    return noise(3, 3, 48, 32).clamp(-1, 1)


def test_encode_is_diffusers_scaled_mean(pipe, model, images):
    scale, posterior = pipe.vae.config.scaling_factor, pipe.vae.encode(images).latent_dist
    z = model.encode(images)
    assert z.shape == (3, 4, 6, 4) and z.dtype == torch.float32 and scale != 1
    assert relative_error(z, scale * posterior.mean) <= 1e-5
    fresh = noise(3, 4, 6, 4, seed=1)
    sample = scale * posterior.sample(torch.Generator().manual_seed(1))
    assert relative_error(model.encode(images, fresh), sample) <= 1e-5


def test_decode_is_diffusers_of_the_unscaled_latent(pipe, model):
    z = noise(3, 4, 6, 4)
    images = model.decode(z)
    assert images.shape == (3, 3, 48, 32) and images.dtype == torch.float32
    assert relative_error(images, pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample) <= 1e-5


def test_embed_is_transformers(pipe, model):
    prompts = ["a dog with glasses", "", "a cat, running!"]
    context = model.embed(prompts)
    assert context.shape == (3, 77, 24) and not context.requires_grad
    assert torch.equal(context, pipe.encode_prompt(prompts, torch.device("cpu"), 1, False)[0])
    assert torch.equal(context, encode_prompt(model, prompts))


def test_a_batch_equals_its_singles(model, images):
    z, fresh, prompts = model.encode(images), noise(3, 4, 6, 4, seed=1), ["a dog", "", "a cat"]
    sampled, decoded, context = model.encode(images, fresh), model.decode(z), model.embed(prompts)
    for i in range(3):
        one = slice(i, i + 1)
        assert relative_error(model.encode(images[one]), z[one]) <= 1e-5
        assert relative_error(model.encode(images[one], fresh[one]), sampled[one]) <= 1e-5
        assert relative_error(model.decode(z[one]), decoded[one]) <= 1e-5
        assert relative_error(model.embed(prompts[one]), context[one]) <= 1e-5


def test_no_gradient_is_kept(model, images):
    before = images.clone()
    model.vae.requires_grad_(True)
    try:
        assert not model.encode(images).requires_grad and not model.decode(noise(1, 4, 2, 2)).requires_grad
    finally:
        model.vae.requires_grad_(False)
    assert torch.equal(images, before) and torch.is_grad_enabled()


def test_the_model_dtype_is_used_inside_and_float32_outside(model, images, monkeypatch):
    seen = []

    class Half(nn.Module):  # a UNet in bfloat16 makes the model's dtype bfloat16
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

    for name in ("encode", "decode"):
        original = getattr(model.vae, name)
        monkeypatch.setattr(model.vae, name, lambda x, f=original: seen.append(x.dtype) or f(x.float()))
    half = replace(model, unet=Half())
    assert half.dtype == torch.bfloat16
    assert half.encode(images).dtype == half.decode(noise(1, 4, 2, 2)).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}


def test_with_offload_a_part_is_on_the_device_only_while_it_works(model, images, monkeypatch):
    """Without a GPU nothing moves, so the moves are counted: to the device before the work, to the CPU after it."""
    moves = []
    for name in ("text_encoder", "vae", "unet"):
        monkeypatch.setattr(getattr(model, name), "to", lambda place, name=name: moves.append((name, str(place))))
    calls = [
        ("text_encoder", lambda m: m.embed(["a dog"])),
        ("vae", lambda m: m.encode(images)),
        ("vae", lambda m: m.decode(noise(1, 4, 2, 2))),
    ]
    for part, call in calls:
        call(model)
        assert moves == []
        call(replace(model, offload=True))
        assert moves == [(part, str(model.device)), (part, "cpu")]
        moves.clear()
    monkeypatch.setattr(model.vae, "decode", lambda z: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        replace(model, offload=True).decode(noise(1, 4, 2, 2))
    assert moves == [("vae", str(model.device)), ("vae", "cpu")], "it goes back after an error, too"


@pytest.mark.parametrize("unet", [lambda x_t, t, context: x_t, nn.Identity()], ids=["lambda", "no weights"])
def test_a_unet_without_weights_and_config(model, images, unet):
    """Device and dtype are then the text encoder's, the size is the VAE's."""
    own = replace(model, unet=unet)
    assert (own.device, own.dtype) == (model.device, model.dtype)
    assert (own.native_latent_size, own.native_size) == (model.native_latent_size, model.native_size) == (8, 64)
    assert torch.equal(own.encode(images), model.encode(images))
    assert torch.equal(own.embed(["a dog"]), model.embed(["a dog"]))

"""The model: autoencoder, UNet, text encoder and noise schedule, and the three ways in and out of its latents.

    context = model.embed(["a dog with glasses"])      text to the vectors that the UNet attends to
    z = model.encode(images)                           images to scaled latents
    images = model.decode(z)                           scaled latents to images

The scaling factor, the device, the dtype and offloading are dealt with here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ldm_course.errors import InputError
from ldm_course.schedule import NoiseSchedule
from ldm_course.text import tokenize
from ldm_course.unet import UNet
from ldm_course.vae import AutoencoderKL, DiagonalGaussian

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class LatentDiffusion:
    """All parts of a text-to-image model.

    Args:
        vae, unet: this course's modules. The UNet may be any callable (x_t, t, context) -> prediction.
        text_encoder, tokenizer: transformers' CLIPTextModel and CLIPTokenizer.
        schedule: how the noise grows over the timesteps.
        known_words: every word of the training captions, if they were few; None if there is no such list.
        offload: the text encoder and the VAE wait on the CPU, and are on the model's device only while they work.
    """

    vae: AutoencoderKL
    unet: UNet
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule
    known_words: frozenset[str] | None = None
    offload: bool = False

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> Tensor:
        """Prompts to the text encoder's last hidden states, (b, 77, d): one vector per token.

        The UNet's cross-attention reads these vectors (Rombach et al. 2022, section 3.3). A warning names the words
        that were cut beyond 77 tokens, and those that the model was never shown.

        Raises InputError unless `prompts` is a list of strings. The empty string is one: guidance compares with it.
        """
        ids = tokenize(self.tokenizer, prompts, self.known_words)
        with self._on_device(self.text_encoder):
            return self.text_encoder(ids.to(self.device)).last_hidden_state

    @torch.no_grad()
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (b, 3, h, w) in [-1, 1] to scaled latents z (b, c, h/8, w/8), float32.

        z is the posterior's mean; with noise ~ N(0, 1) of z's shape it is a sample of the posterior.
        """
        with self._on_device(self.vae):  # one by one, because an image takes much more memory than its latent
            posteriors = [self.vae.encode(image.to(self.device, self.dtype)) for image in images.split(1)]
        mean, logvar = (torch.cat([getattr(p, name) for p in posteriors]).float() for name in ("mean", "logvar"))
        z = mean if noise is None else DiagonalGaussian(mean, logvar).sample(noise.to(self.device))
        return self.vae.config.scaling_factor * z

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (b, c, h/8, w/8) to images (b, 3, h, w), float32, roughly in [-1, 1]."""
        z = (z / self.vae.config.scaling_factor).to(self.device, self.dtype)
        with self._on_device(self.vae):
            return torch.cat([self.vae.decode(one) for one in z.split(1)]).float()

    @property
    def device(self) -> torch.device:
        """Where the UNet is; the other parts are there, too, or go there to work (`offload`)."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, torch.float32 unless `load` was asked for another."""
        return self._weight.dtype

    @property
    def native_size(self) -> int:
        """Height and width of the images that the model was trained on, in pixels."""
        return self.native_latent_size * self.vae.downscale

    @property
    def native_latent_size(self) -> int:
        """Height and width of the latents that the model was trained on."""
        config = getattr(self.unet, "config", None)
        return config.sample_size if config else self.vae.config.sample_size // self.vae.downscale

    @property
    def _weight(self) -> Tensor:
        """Any weight of the UNet, or of the text encoder if the UNet is a callable without weights."""
        parts = (part for part in (self.unet, self.text_encoder) if isinstance(part, nn.Module))
        return next(chain.from_iterable(part.parameters() for part in parts))

    @contextmanager
    def _on_device(self, part: nn.Module) -> Iterator[None]:
        """With `offload`, move a part to the model's device inside, and back to the CPU afterwards."""
        if self.offload:
            part.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                part.to("cpu")


def encode_prompt(model: LatentDiffusion, prompts: list[str]) -> Tensor:
    """`model.embed(prompts)`, after checking that `model` is one."""
    check_model(model)
    return model.embed(prompts)


def check_model(model: object) -> None:
    """Raise InputError unless it is a model, and not the prompt or the folder in its place."""
    if not hasattr(model, "unet"):
        raise InputError(f"The first argument must be a model, from ldm_course.load(), not {type(model).__name__}.")
    if not callable(model.unet) or not hasattr(getattr(model, "vae", None), "downscale"):
        raise InputError(
            "The model needs a UNet that can be called, and a VAE of this course; for diffusers' VAE make one with "
            "vae = AutoencoderKL(VAEConfig(...)) and vae.load_state_dict(theirs.state_dict())."
        )

"""What the live widgets compute once: the vectors of a prompt, and all about a picture that is repainted often."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ldm_course.images import resized, to_rgb, to_tensor, worked_size
from ldm_course.model import LatentDiffusion, encode_prompt

GUIDANCE = 7.5  # of the live widgets


class Reader:
    """A model, and the vectors of prompts it once read."""

    def __init__(self, model: LatentDiffusion):
        self.model = model
        self._contexts: dict[str, Tensor] = {}

    def context(self, prompt: str) -> Tensor:
        """The prompt's vectors, (1, 77, d)."""
        if prompt not in self._contexts:
            self._contexts[prompt] = encode_prompt(self.model, [prompt])
        return self._contexts[prompt]


class Prepared(Reader):
    """A picture at the size at which it is worked on, and its scaled latent z (1, c, h, w)."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int):
        super().__init__(model)
        image = to_rgb(image)
        size = worked_size(*image.size, model.native_size**2, model.vae.downscale)
        (self.image,) = resized([image], size)
        self.timesteps = model.schedule.timesteps(num_inference_steps)
        with torch.no_grad(), model.at_work(model.vae):
            pixels = to_tensor(self.image).to(model.device, model.dtype)
            self.z = model.vae.encode(pixels).mean.float() * model.vae.config.scaling_factor

    def noise(self, seed: int) -> Tensor:
        """Noise of the latent's shape."""
        return torch.randn(self.z.shape, generator=torch.Generator().manual_seed(seed)).to(self.z.device)

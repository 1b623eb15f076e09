"""What the live widgets compute once: the contexts of prompts, and the latent of an image."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ldm_course.images import resized, to_rgb, to_tensor, worked_size
from ldm_course.model import LatentDiffusion

SEED, STEPS, GUIDANCE = 12, 20, 4.0  # of all images of notebooks 04 to 06, with DDIM


class PromptCache:
    """A model, and the contexts of the prompts that it has embedded."""

    def __init__(self, model: LatentDiffusion):
        self.model = model
        self._contexts: dict[str, Tensor] = {}

    def context(self, prompt: str) -> Tensor:
        """The prompt's vectors, (1, 77, d)."""
        if prompt not in self._contexts:
            self._contexts[prompt] = self.model.embed([prompt])
        return self._contexts[prompt]


class EncodedImage(PromptCache):
    """An image at the size at which it is worked on, its scaled latent z (1, c, h, w), and the timesteps to visit."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int):
        super().__init__(model)
        image = to_rgb(image)
        (self.image,) = resized([image], worked_size(*image.size, model.native_size**2, model.vae.downscale))
        self.timesteps = model.schedule.timesteps(num_inference_steps)
        self.z = model.encode(to_tensor(self.image))

    def noise(self, seed: int) -> Tensor:
        """Noise of z's shape, the same for the same seed."""
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(self.z.shape, generator=generator, dtype=torch.float32, device="cpu").to(self.z.device)

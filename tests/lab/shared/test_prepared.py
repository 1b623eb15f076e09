"""What the live widgets compute once."""

from __future__ import annotations

import torch
from PIL import Image
from torch.testing import assert_close

from ldm_course.images import to_tensor
from ldm_course.lab.shared.prepared import EncodedImage, PromptCache


def test_a_prompt_is_embedded_once(model):
    cache = PromptCache(model)
    assert cache.context("a dog") is cache.context("a dog")
    assert_close(cache.context("a dog"), model.embed(["a dog"]))


def test_an_image_is_encoded_at_the_size_at_which_it_is_worked_on(model):
    encoded = EncodedImage(model, Image.radial_gradient("L").resize((100, 50)), 5)
    assert encoded.image.mode == "RGB" and encoded.image.size == (88, 40)
    assert_close(encoded.z, model.encode(to_tensor(encoded.image)))
    assert encoded.timesteps == model.schedule.timesteps(5)
    assert encoded.noise(3).shape == encoded.z.shape
    assert torch.equal(encoded.noise(3), encoded.noise(3)) and not torch.equal(encoded.noise(3), encoded.noise(4))

"""One model in a long-lived service: many threads, many images, flat memory (docs/service.md)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import ldm_course as ldm

THREADS, IMAGES, WARM_UP = 8, 1000, 100
PROMPTS = ("a dog with glasses", "a cat", "a white rabbit with a hat sleeping in a room", "")


def sample(model: ldm.LatentDiffusion, i: int) -> np.ndarray:
    """Request number i: prompt, seed and sampler follow from i."""
    prompt, scheduler = PROMPTS[i % len(PROMPTS)], ("ddim", "dpm++", "ddpm")[i % 3]
    image: Image.Image = ldm.txt2img(
        model, prompt, seed=i % 12, num_inference_steps=3, scheduler=scheduler, height=64, width=64
    )
    return np.asarray(image, dtype=int)


@pytest.mark.slow
def test_a_thousand_images_from_eight_threads_are_right_and_memory_stays_flat():
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = ldm.load(device="cpu")
        expected = [sample(model, i) for i in range(12)]  # prompts, samplers and seeds repeat after 12 requests
        process, rss = psutil.Process(), []

        def request(i: int) -> int:
            difference = int(abs(sample(model, i) - expected[i % 12]).max())
            rss.append(process.memory_info().rss)
            return difference

        with ThreadPoolExecutor(THREADS) as pool:
            differences = list(pool.map(request, range(IMAGES)))
    finally:
        torch.set_num_threads(threads_before)
    assert max(differences) <= 1
    warm, end = np.median(rss[WARM_UP : 2 * WARM_UP]), np.median(rss[-WARM_UP:])
    assert end < 1.02 * warm, f"memory grew from {warm / 1e6:.0f} to {end / 1e6:.0f} MB"

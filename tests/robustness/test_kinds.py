"""A search over kinds of fault that users report: ranges of grey, alpha, results of callbacks, torch's defaults."""

from __future__ import annotations

import numpy as np
import torch
from helpers import or_one_sentence
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldm_course.images import to_grey, to_rgb
from ldm_course.pipelines import SAMPLERS, txt2img
from ldm_course.sampling import denoise

RANGES = [("F", 1.0), ("F", 255.0), ("I", 255), ("I", 4095), ("I", 65535), ("I;16", 4095), ("I;16", 65535)]
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from(RANGES))
def test_grey_of_any_range_has_its_brightness(seed, kind):
    mode, white = kind
    share = np.random.default_rng(seed).random((9, 11))
    share.flat[0] = 1.0  # white occurs: the range is recognised by the largest value
    dtype = {"F": np.float32, "I": np.int32, "I;16": np.uint16}[mode]
    image = Image.fromarray((share * white).astype(dtype))
    assert image.mode == mode
    assert np.abs(np.asarray(to_rgb(image), dtype=float) - 255 * share[..., None]).max() <= 1.6


@given(st.floats(-1e9, 1e9, width=32), st.sampled_from(["F", "I"]))
def test_grey_out_of_every_range_is_named(value, mode):
    pixels = np.full((8, 8), value, {"F": np.float32, "I": np.int32}[mode])
    image = or_one_sentence(lambda: to_rgb(Image.fromarray(pixels)))
    assert (image is not None) == bool(0 <= pixels[0, 0] <= 65535)


@given(seeds, st.integers(0, 255), st.booleans())
def test_alpha_is_a_mask_only_on_white(seed, grey, binary):
    """White on transparent is a mask, its alpha the share to repaint; an image with a hole is refused."""
    alpha = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
    alpha = np.where(alpha > 127, 255, 0).astype(np.uint8) if binary else alpha
    image = Image.merge("LA", (Image.new("L", (16, 16), grey), Image.fromarray(alpha)))
    mask = or_one_sentence(lambda: to_grey(image))
    if grey == 255:
        assert mask is not None and np.abs(np.asarray(mask, dtype=int) - alpha).max() <= 1
    elif 8 < grey < 247:
        assert mask is None


shapes = st.lists(st.integers(1, 5), max_size=5).map(tuple) | st.just((1, 4, 2, 2))


@given(st.sampled_from(["unet", "step", "after_step"]), shapes, st.sampled_from([torch.float32, torch.float64]))
def test_results_of_callbacks(model, part, shape, dtype):
    """The loop goes on with a tensor of the latents' shape, and refuses all others; nothing is broadcast."""
    result = torch.zeros(shape, dtype=dtype)
    unet = (lambda *_: result) if part == "unet" else lambda x_t, t, context: x_t
    options = {} if part == "unet" else {part: lambda *_: result} if part == "step" else {part: lambda x, t: result}
    own = type(model)(**{**vars(model), "unet": unet})
    x_T, context = torch.ones(1, 4, 2, 2), torch.zeros(1, 77, 24)
    states = or_one_sentence(lambda: list(denoise(own, x_T, context, [900, 500], **options)))
    assert (states is not None) == (shape == (1, 4, 2, 2))
    assert states is None or all(state.x_t.shape == x_T.shape for state in states)


@given(
    st.sampled_from([torch.float64, torch.float16, torch.bfloat16]), st.sampled_from(["cpu", "meta"]),
    st.sampled_from(sorted(SAMPLERS)), st.integers(0, 99),
)  # fmt: skip
def test_defaults_of_torch(model, dtype, device, scheduler, seed):
    def sample() -> np.ndarray:
        return np.asarray(txt2img(model, "a dog", seed=seed, num_inference_steps=3, scheduler=scheduler, height=16))

    expected = sample()
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        assert np.array_equal(sample(), expected)
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)

"""Images of every kind become the right tensors, and masks the right latent cells."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from helpers import noise
from PIL import Image

from ldm_course.images import latent_mask, load_image, resized, to_grey, to_pil, to_rgb, to_tensor, worked_size


def image_of(width: int = 24, height: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixel(image: Image.Image) -> tuple[int, ...]:
    return to_rgb(image).getpixel((0, 0))


def test_same_tensors_as_diffusers():
    processor, image = VaeImageProcessor(), image_of()
    x = to_tensor(image)
    assert x.shape == (1, 3, 16, 24) and x.dtype == torch.float32 and x.min() >= -1 and x.max() <= 1
    assert torch.equal(x, processor.preprocess(image))

    images = 1.5 * noise(2, 3, 8, 16)  # beyond [-1, 1], too
    ours, theirs = to_pil(images), processor.postprocess(images, output_type="pil")
    assert [np.array_equal(a, b) for a, b in zip(ours, theirs)] == [True, True]
    assert torch.equal(images, 1.5 * noise(2, 3, 8, 16))


def test_shrinking_is_diffusers():
    image = image_of(100, 60)
    (ours,) = resized([image], (48, 32))
    assert torch.equal(to_tensor(ours), VaeImageProcessor().preprocess(image, height=32, width=48))
    assert resized([image], image.size)[0] is image


@pytest.mark.parametrize(
    "mode, colour, seen",
    [
        ("RGB", (255, 0, 0), (255, 0, 0)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("P", 0, (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),  # transparency lies on white
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (9, 255), (9, 9, 9)),
    ],
)
def test_modes(mode, colour, seen):
    image = Image.new(mode, (8, 8), colour)
    before = image.tobytes()
    assert pixel(image) == seen
    assert image.mode == mode and image.tobytes() == before


def test_transparent_palette(tmp_path):
    """A GIF-like PNG: one palette entry is see-through."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    for options, seen in (({"transparency": 1}, (255, 255, 255)), ({}, (40, 50, 60))):
        image.save(tmp_path / "palette.png", **options)
        assert pixel(load_image(tmp_path / "palette.png")) == seen


@pytest.mark.parametrize(
    "white, value, byte",
    [(255, 77, 77), (4095, 2048, 128), (65_535, 0, 0), (65_535, 128, 0), (65_535, 129, 1), (65_535, 30_000, 117)],
)
def test_grey_of_more_than_8_bits(tmp_path, white, value, byte):
    """8, 12 and 16 bits, told apart by the largest value; from a file, as 32-bit integers, and as floats."""
    pixels = np.full((8, 8), value, dtype=np.uint16)
    pixels[-1, -1] = white
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    integers, floats = (Image.fromarray(pixels.astype(dtype)) for dtype in (np.int32, np.float32))
    for image in (load_image(tmp_path / "deep.png"), integers, floats):
        assert image.mode[0] in "IF" and pixel(image) == (byte,) * 3
        assert to_rgb(image).getpixel((7, 7)) == (255, 255, 255)


def test_grey_floats_from_0_to_1():
    assert pixel(Image.fromarray(np.array([[0.5, 0.0, 1.0]], dtype=np.float32))) == (128, 128, 128)


def test_exif_rotation(tmp_path):
    """A phone's portrait: the file lies on its side and says so."""
    image = Image.new("RGB", (32, 16), "white")
    image.paste((255, 0, 0), (0, 0, 16, 16))  # the left half is red
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to see it upright
    image.save(tmp_path / "phone.png", exif=exif)
    upright = to_rgb(load_image(tmp_path / "phone.png"))
    assert upright.size == (16, 32)
    assert upright.getpixel((8, 4)) == (255, 0, 0) and upright.getpixel((8, 28)) == (255, 255, 255)
    Image.new("L", (32, 16)).save(tmp_path / "mask.png", exif=exif)
    assert to_grey(load_image(tmp_path / "mask.png")).size == (16, 32)


@pytest.mark.parametrize(
    "size, area, multiple, expected",
    [
        ((128, 128), 128**2, 8, (128, 128)),
        ((130, 127), 128**2 * 2, 8, (128, 120)),  # rounded down
        ((64, 40), 128**2, 8, (64, 40)),  # not enlarged
        ((4000, 3000), 128**2, 8, (144, 104)),  # a phone's photo on the small model
        ((3000, 4000), 128**2, 8, (104, 144)),
        ((512, 768), 512**2, 8, (416, 624)),
        ((15, 9), 64**2, 2, (14, 8)),
    ],
)
def test_worked_size(size, area, multiple, expected):
    assert worked_size(*size, area, multiple) == expected


# Masks


def test_same_latent_mask_as_diffusers():
    """Soft and ragged masks: hard at one half, then nearest-neighbour."""
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    for seed in range(5):
        mask = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 64), dtype=np.uint8))
        hard = processor.preprocess(mask, height=40, width=64)
        ours = latent_mask(mask)
        assert ours.shape == (1, 1, 5, 8) and set(ours.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(ours, torch.nn.functional.interpolate(hard, size=(5, 8)))
    assert latent_mask(mask, downscale=4).shape == (1, 1, 10, 16)


def right_half(mode: str, black: object, white: object) -> Image.Image:
    mask = Image.new(mode, (16, 8), black)
    mask.paste(white, (8, 0, 16, 8))
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        right_half("L", 127, 128),
        right_half("L", 0, 1),  # zeros and ones
        right_half("1", 0, 1),
        right_half("1", 0, 1).convert("P"),
        right_half("RGB", "black", "white"),
        right_half("RGBA", (0, 0, 0, 0), (255, 255, 255, 255)),  # white strokes on nothing, as paint programs save
    ],
)
def test_masks_of_other_modes(mask):
    assert latent_mask(mask).tolist() == [[[[0.0, 1.0]]]]


def test_a_mask_as_a_jpeg_is_tinted_and_still_a_mask():
    """Colour noise of a lossy file is no colour."""
    mask = Image.new("RGB", (64, 64))
    mask.paste((255, 255, 255), (16, 16, 64, 64))
    file = io.BytesIO()
    mask.save(file, "JPEG", quality=60)
    assert torch.equal(latent_mask(load_image(file)), latent_mask(mask))

"""Pictures of every kind become the right tensors, and masks the right latent cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from helpers import noise, one_sentence
from PIL import Image

from ldm_course.images import latent_mask, load_image, resized, to_grey, to_pil, to_rgb, to_tensor, worked_size


def picture(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixel(image: Image.Image) -> tuple[int, ...]:
    return to_rgb(image).getpixel((0, 0))


def test_same_tensors_as_diffusers():
    processor, image = VaeImageProcessor(), picture()
    x = to_tensor(image)
    assert x.shape == (1, 3, 16, 24) and x.dtype == torch.float32 and x.min() >= -1 and x.max() <= 1
    assert torch.equal(x, processor.preprocess(image))

    pictures = 1.5 * noise(2, 3, 8, 16)  # beyond [-1, 1], too
    ours, theirs = to_pil(pictures), processor.postprocess(pictures, output_type="pil")
    assert [np.array_equal(a, b) for a, b in zip(ours, theirs)] == [True, True]


def test_every_byte_survives_the_round_trip():
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    (back,) = to_pil(to_tensor(image))
    assert np.array_equal(image, back)


def test_shrinking_is_diffusers():
    image = picture(100, 60)
    (ours,) = resized([image], (48, 32))
    assert torch.equal(to_tensor(ours), VaeImageProcessor().preprocess(image, height=32, width=48))
    assert resized([image], image.size)[0] is image


def test_modes():
    red = (255, 0, 0)
    assert pixel(Image.new("RGB", (8, 8), red)) == red
    assert pixel(Image.new("L", (8, 8), 77)) == (77, 77, 77)
    assert pixel(Image.new("1", (8, 8), 1)) == (255, 255, 255)
    assert pixel(Image.new("P", (8, 8), 0)) == (0, 0, 0)
    assert pixel(Image.new("RGB", (8, 8), red).quantize()) == red
    assert pixel(Image.new("CMYK", (8, 8), (0, 255, 255, 0))) == red


def test_transparency_lies_on_white():
    assert pixel(Image.new("RGBA", (8, 8), (255, 0, 0, 255))) == (255, 0, 0)
    assert pixel(Image.new("RGBA", (8, 8), (0, 0, 0, 0))) == (255, 255, 255)
    assert pixel(Image.new("RGBA", (8, 8), (255, 0, 0, 128))) == (255, 127, 127)
    assert pixel(Image.new("LA", (8, 8), (0, 0))) == (255, 255, 255)
    assert pixel(Image.new("LA", (8, 8), (9, 255))) == (9, 9, 9)


def test_transparent_palette(tmp_path):
    """A GIF-like PNG: one palette entry is see-through."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "palette.png", transparency=1)
    loaded = load_image(tmp_path / "palette.png")
    assert loaded.mode == "P" and pixel(loaded) == (255, 255, 255)
    image.save(tmp_path / "opaque.png")
    assert pixel(load_image(tmp_path / "opaque.png")) == (40, 50, 60)


@pytest.mark.parametrize("value, byte", [(0, 0), (128, 0), (129, 1), (30_000, 117), (65_535, 255)])
def test_16_bits(tmp_path, value, byte):
    Image.fromarray(np.full((8, 8), value, dtype=np.uint16)).save(tmp_path / "deep.png")
    loaded = load_image(tmp_path / "deep.png")
    assert loaded.mode.startswith("I") and pixel(loaded) == (byte,) * 3
    assert pixel(Image.fromarray(np.full((8, 8), value, dtype=np.int32))) == (byte,) * 3


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
    assert to_grey(load_image(tmp_path / "phone.png")).size == (16, 32)


def test_inputs_are_not_changed():
    image = Image.new("RGBA", (8, 8), (1, 2, 3, 4))
    before = image.tobytes()
    to_tensor(image), to_grey(image), latent_mask(Image.new("L", (8, 8), 255))
    assert image.mode == "RGBA" and image.tobytes() == before
    x = 2 * noise(1, 3, 8, 8)
    to_pil(x)
    assert torch.equal(x, 2 * noise(1, 3, 8, 8))


@pytest.mark.parametrize(
    "size, area, expected",
    [
        ((128, 128), 128**2, (128, 128)),
        ((130, 127), 128**2 * 2, (128, 120)),  # rounded down
        ((64, 40), 128**2, (64, 40)),  # not enlarged
        ((256, 256), 128**2, (128, 128)),
        ((640, 640), 128**2, (128, 128)),
        ((4000, 3000), 128**2, (144, 104)),  # a phone's photo on the small model
        ((3000, 4000), 128**2, (104, 144)),
        ((512, 768), 512**2, (416, 624)),
        ((8, 8), 128**2, (8, 8)),
    ],
)
def test_worked_size(size, area, expected):
    assert worked_size(*size, area) == expected
    assert expected[0] * expected[1] <= area


def test_worked_size_of_other_cells():
    assert worked_size(15, 9, 64**2, multiple=2) == (14, 8)


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (4000, 10)])
def test_too_small(size):
    with one_sentence(f"{size[0]} x {size[1]}", "at least 8"):
        worked_size(*size, 128**2)


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


def test_mask_threshold():
    mask = Image.new("L", (16, 8), 127)
    mask.paste(128, (8, 0, 16, 8))
    assert latent_mask(mask).tolist() == [[[[0.0, 1.0]]]]


def test_masks_of_other_modes():
    """White strokes on nothing, as a paint program saves them, are a mask; see-through is not painted."""
    strokes = Image.new("RGBA", (16, 8), (0, 0, 0, 0))
    strokes.paste((255, 255, 255, 255), (8, 0, 16, 8))
    box = Image.new("1", (16, 8))
    box.paste(1, (8, 0, 16, 8))
    for mask in (strokes, box, box.convert("RGB"), box.convert("P")):
        assert latent_mask(mask).tolist() == [[[[0.0, 1.0]]]]


def test_empty_masks():
    with one_sentence("empty", "white"):
        latent_mask(Image.new("L", (16, 16), 100))
    thin = Image.new("L", (16, 16))
    thin.paste(255, (3, 3, 6, 6))
    with one_sentence("too thin", "8 x 8"):
        latent_mask(thin)


# Files


def test_bad_files(tmp_path):
    with one_sentence("no file", "missing.png"):
        load_image(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("not a picture")
    picture().save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    for name in ("text.png", "cut.png", "."):
        with one_sentence("not a picture"):
            load_image(tmp_path / name)
    assert np.array_equal(load_image(tmp_path / "good.png"), picture())


def test_not_a_picture():
    for wrong in ("dog.png", None, np.zeros((8, 8, 3), dtype=np.uint8), torch.zeros(1, 3, 8, 8)):
        with one_sentence("PIL image", type(wrong).__name__):
            to_tensor(wrong)

"""Whatever the public functions are given: the right kind of result, or one clear sentence; never anything else.

hypothesis makes the cases up. `make test` tries a few, always the same; `make test-long` searches.
"""

from __future__ import annotations

import io
import math
import random
import struct
import zlib
from decimal import Decimal
from fractions import Fraction
from numbers import Integral

import numpy as np
import pytest
import torch
from helpers import one_sentence, or_one_sentence
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from ldm_course import scenes
from ldm_course.images import load_image, to_pil, to_rgb
from ldm_course.pipelines import img2img, inpaint, txt2img
from ldm_course.sampling import denoise
from ldm_course.text import encode_prompt

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F",
         "I;16", "I;16B", "I;16L", "I;16N")  # fmt: skip
SIZES = [(0, 0), (1, 1), (1, 300), (300, 1), (7, 8), (8, 8), (9, 23), (64, 64), (200, 90), (2000, 10)]
BITS = {"1": 1, "L": 8, "P": 8, "LA": 16, "La": 16, "PA": 16, "RGB": 24, "YCbCr": 24, "LAB": 24, "HSV": 24}

ODD = [
    *(math.nan, math.inf, -math.inf, -0.0, 0, -1, 1.5, 1e39, -1e300, 2**63, 10**400, True, 1j),
    *(np.float16(0.5), np.int8(2), np.uint64(2**63), np.bool_(True), np.array([1.0, 2.0]), np.zeros((3, 3))),
    *(Fraction(1, 2), Decimal(1), torch.tensor(0.5), "1", "", "x" * 100_000, b"1", None, [], [1], {}, object, Image),
]
odd = st.sampled_from(ODD)
letters = st.characters(exclude_categories=())  # all of Unicode, lone surrogates too
texts = st.text(letters, max_size=200) | st.sampled_from(
    ["", " ", "\0", "\ud800", "\u202e\u05d0\u05d1", "e" + "\u0301" * 500, "a" * 20_000, "a " * 5_000, "\U0010ffff",
     "<|endoftext|> a dog", "\n\u2028\t", "👩‍👩‍👧" * 50]
)  # fmt: skip


@st.composite
def pictures(draw: st.DrawFn) -> Image.Image:
    """Of any mode and size, with any bytes for pixels, and sometimes with odd remarks beside them."""
    mode, size = draw(st.sampled_from(MODES)), draw(st.sampled_from(SIZES))
    bits = 16 if mode.startswith("I;") else BITS.get(mode, 32)
    length = (size[0] * bits + 7) // 8 * size[1]
    pixels = random.Random(draw(st.integers(0, 5))).randbytes(length)
    image = Image.frombytes(mode, size, pixels) if 0 not in size else Image.new(mode, size)
    remark = draw(st.sampled_from([None, 0, 300, (1, 2, 3), b"", b"\0\xff", "x", -1]))
    if remark is not None:
        image.info["transparency"] = remark
    if draw(st.booleans()):
        image.getexif()[0x0112] = draw(st.sampled_from([1, 3, 6, 8, 99, "x"]))
    return image


def assert_picture(image: Image.Image, largest: int = 64**2) -> None:
    assert image.mode == "RGB" and image.width % 8 == image.height % 8 == 0
    assert 0 < image.width * image.height <= largest


# ---- the three tasks -------------------------------------------------------------------------------------------

PICTURE = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
MASK = Image.new("L", (16, 16), 255)
TASKS = {
    "txt2img": lambda model, prompt, **options: txt2img(model, prompt, height=16, width=16, **options),
    "img2img": lambda model, prompt, **options: img2img(model, prompt, PICTURE, **options),
    "inpaint": lambda model, prompt, **options: inpaint(model, prompt, PICTURE, MASK, **options),
}
each_task = pytest.mark.parametrize("task", TASKS)


@each_task
@given(
    options=st.fixed_dictionaries(
        {"num_inference_steps": st.sampled_from([1, 2, 2, 2]) | odd},
        optional={
            "guidance_scale": st.floats(0, 20) | odd | st.floats(),
            "strength": st.floats(0, 1) | odd | st.floats(),
            "seed": st.integers(0, 2**63 - 1) | odd | st.integers(),
            "scheduler": st.sampled_from(["ddim", "ddpm", "euler", "dpm++"]) | odd,
            "timestep_spacing": st.sampled_from(["leading", "trailing", "linspace", None]) | odd,
            "negative_prompt": texts | odd,
            "generator": st.sampled_from([None, 5, [], [None], torch.Generator]),
        },
    )
)
@example({"num_inference_steps": np.int8(100)})
@example({"num_inference_steps": 2, "guidance_scale": Fraction(15, 2)})
@example({"num_inference_steps": 2, "guidance_scale": 10**400})
@example({"num_inference_steps": 2, "scheduler": np.array(["ddim", "ddpm"])})
def test_options(model, task, options):
    if task == "txt2img":
        options.pop("strength", None)
    before = dict(options)
    image = or_one_sentence(lambda: TASKS[task](model, "a dog", **options))
    assert options.keys() == before.keys() and all(options[key] is before[key] for key in options)
    if image is not None:
        assert image.size == (16, 16)
        assert_picture(image)


@pytest.mark.parametrize("name", ["seed", "num_inference_steps", "guidance_scale", "strength", "scheduler"])
def test_numbers_that_python_does_not_print(model, name):
    with one_sentence(name, "too long to show"):
        img2img(model, "a dog", PICTURE, **{name: 10**5000})


def test_a_timestep_that_python_does_not_print(model):
    with one_sentence("no timestep a number too long to show"):
        denoise(model, torch.ones(1, 4, 2, 2), torch.ones(1, 77, 24), [10**5000])


@each_task
@given(prompts=texts | st.lists(texts, max_size=3) | st.lists(texts | odd, max_size=3).map(tuple) | odd)
def test_prompts(model, task, prompts):
    painted = or_one_sentence(lambda: TASKS[task](model, prompts, num_inference_steps=1, guidance_scale=1, seed=0))
    if painted is not None:
        images = painted if isinstance(painted, list) else [painted]
        assert len(images) == (1 if isinstance(prompts, str) else len(prompts))
        for image in images:
            assert_picture(image)


small = odd.filter(lambda value: not isinstance(value, Integral) or value <= 64)


@given(side=st.integers(-100, 64) | small)
def test_sizes(model, side):
    image = or_one_sentence(lambda: txt2img(model, "a dog", height=side, width=8, num_inference_steps=1, seed=0))
    assert (image is not None) == (side is None or (isinstance(side, int) and side > 0 and side % 8 == 0))


@given(image=pictures())
def test_pictures(model, image):
    before = image.mode, image.size, image.tobytes(), dict(image.info)
    painted = or_one_sentence(lambda: img2img(model, "a dog", image, num_inference_steps=1, seed=0))
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before
    if painted is not None:
        assert_picture(painted)
    elif min(image.size) >= 8 and image.size != (2000, 10) and image.mode != "La":
        assert image.info or image.getexif(), "a plain picture of fair size was refused"


@given(mask=pictures(), composite=st.booleans())
def test_masks(model, mask, composite):
    image = Image.new("RGB", mask.size, "orange")
    before = mask.mode, mask.size, mask.tobytes()
    options = {"num_inference_steps": 1, "seed": 0, "composite": composite}
    painted = or_one_sentence(lambda: inpaint(model, "a dog", image, mask, **options))
    assert (mask.mode, mask.size, mask.tobytes()) == before
    if painted is not None:
        assert_picture(painted)


@given(wrong=odd, where=st.sampled_from(["image", "mask", "list"]))
def test_not_pictures(model, wrong, where):
    with one_sentence():
        if where == "image":
            img2img(model, "a dog", wrong)
        elif where == "mask":
            inpaint(model, "a dog", PICTURE, wrong)
        else:
            img2img(model, ["a dog"], [wrong])


def test_numbers_that_grow_too_large_make_no_black_picture(model):
    with one_sentence("NaN", "guidance_scale"):
        txt2img(model, "a dog", latents=torch.full((1, 4, 8, 8), math.inf), num_inference_steps=1)
    with one_sentence("NaN"):
        to_pil(torch.full((1, 3, 8, 8), math.nan))
    assert to_pil(torch.tensor([-math.inf, 0, math.inf]).reshape(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 128, 255)


# ---- files -----------------------------------------------------------------------------------------------------


def in_format(name: str, image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    noisy = Image.frombytes("RGB", (24, 24), random.Random(0).randbytes(24 * 24 * 3))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "turned"
    frames = {"save_all": True, "append_images": [noisy.rotate(90)]}
    deep = Image.frombytes("I;16", (8, 8), random.Random(0).randbytes(128))
    return {
        "PNG": in_format("PNG", noisy, exif=exif),
        "PNG with a palette": in_format("PNG", noisy.quantize(), transparency=1),
        "PNG of 16 bits": in_format("PNG", deep),
        "animated PNG": in_format("PNG", noisy, **frames),
        "JPEG": in_format("JPEG", noisy, exif=exif),
        "JPEG in CMYK": in_format("JPEG", noisy.convert("CMYK")),
        "WebP": in_format("WEBP", noisy, exif=exif),
        "animated WebP": in_format("WEBP", noisy, **frames),
        "animated GIF": in_format("GIF", noisy, **frames),
        "BMP": in_format("BMP", noisy),
        "TIFF": in_format("TIFF", noisy, exif=exif, compression="tiff_lzw"),
        "TIFF of 16 bits": in_format("TIFF", deep),
        "PPM": in_format("PPM", noisy),
        "TGA": in_format("TGA", noisy),
        "ICO": in_format("ICO", noisy),
    }


FILES = files()
FORMATS = pytest.mark.parametrize("name", FILES)


@FORMATS
def test_whole_files_open_and_leave_no_file_open(name, tmp_path, recwarn):
    (tmp_path / "picture").write_bytes(FILES[name])
    image = load_image(tmp_path / "picture")
    assert to_rgb(image).size in {(24, 24), (8, 8), (16, 16)}
    assert getattr(image, "fp", None) is None
    (tmp_path / "picture").unlink()
    assert to_rgb(image).mode == "RGB"


@FORMATS
@given(data=st.data())
def test_damaged_files(name, data):
    """Cut short anywhere, or with some bytes changed. (Smaller limits than PIL's, so that each case is quick.)"""
    whole = bytearray(FILES[name])
    places = st.integers(0, len(whole) - 1) | st.integers(0, min(len(whole), 200) - 1)
    if data.draw(st.booleans(), "cut"):
        del whole[data.draw(places) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(places)] = data.draw(st.integers(0, 255))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)
        image = or_one_sentence(lambda: to_rgb(load_image(io.BytesIO(whole))))
    assert image is None or (image.mode == "RGB" and image.width * image.height <= 1_000_000)


def test_a_png_of_3600_million_pixels_is_refused_at_once(tmp_path):
    """A decompression bomb: 69 bytes that ask for 10 GB."""
    small = in_format("PNG", Image.new("RGB", (1, 1)))
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + small[24:29]
    bomb = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    with one_sentence("bomb.png", "DecompressionBombError"):
        load_image(tmp_path / "bomb.png")


def test_a_png_with_a_text_bomb_is_refused(tmp_path):
    text = b"zTXtbomb\0\0" + zlib.compress(b" " * 3_000_000)
    small = in_format("PNG", Image.new("RGB", (8, 8)))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "bomb.png").write_bytes(small[:33] + chunk + small[33:])
    with one_sentence("bomb.png", "not a picture"):
        load_image(tmp_path / "bomb.png")


def test_a_picture_of_a_cut_file_is_refused_by_the_tasks_too(model, tmp_path):
    """PIL reads the pixels only when they are asked for."""
    (tmp_path / "cut.png").write_bytes(FILES["PNG"][:500])
    with Image.open(tmp_path / "cut.png") as image, one_sentence("cannot be read", "truncated"):
        img2img(model, "a dog", image)


@pytest.mark.parametrize(
    "path", [None, 3, [], "a\0b", "\ud800", "x" * 5000, "~nobody/x.png", "", b"\xff", "/dev/null"]
)
def test_no_such_files(path):
    with one_sentence():
        load_image(path)


# ---- texts, the loop, scenes -----------------------------------------------------------------------------------


@given(prompts=st.lists(texts, min_size=1, max_size=3))
def test_texts(model, prompts):
    before = list(prompts)
    vectors = or_one_sentence(lambda: encode_prompt(model, prompts))
    assert prompts == before
    lone = any("\ud800" <= letter <= "\udfff" for prompt in prompts for letter in prompt)
    assert (vectors is None) == lone
    if vectors is not None:
        assert vectors.shape == (len(prompts), 77, 24) and vectors.isfinite().all()


tensors = st.builds(
    lambda shape, dtype: torch.ones(shape, dtype=dtype),
    st.sampled_from([(1, 4, 2, 2), (1, 4, 1, 9), (2, 4, 2, 2), (0, 4, 2, 2), (1, 4, 0, 2), (1, 77, 24), (2, 77, 24),
                     (1, 0, 24), (4,), ()]),
    st.sampled_from([torch.float32, torch.float16, torch.int32, torch.bool]),
)  # fmt: skip


@given(
    x_T=tensors | odd,
    context=tensors | odd,
    negative=st.none() | tensors | odd,
    timesteps=st.lists(st.integers(-2, 1001), max_size=3) | st.lists(odd, max_size=2) | odd,
    scale=st.sampled_from([1.0, 7.5, Fraction(3, 2)]) | odd,
    generator=st.sampled_from([None, 5, [], [None]]),
)
@example(torch.ones(1, 4, 2, 2), torch.ones(1, 77, 24), torch.ones(1, 77, 24), [5, 1], Fraction(3, 2), None)
@example(torch.ones(1, 4, 2, 2), torch.ones(1, 77, 24), None, [5.5], 1.0, None)
def test_the_loop(model, x_T, context, negative, timesteps, scale, generator):
    assume(not (isinstance(x_T, torch.Tensor) and x_T.dim() == 4 and getattr(context, "dim", int)() != 3))
    options = {"negative_context": negative, "guidance_scale": scale, "generator": generator, "scheduler": "ddpm"}
    states = or_one_sentence(lambda: list(denoise(model, x_T, context, timesteps, **options)))
    if states is not None:
        assert [state.t for state in states] == [*map(int, timesteps), -1]
        assert all(state.x_t.shape == x_T.shape and state.x_t.dtype == torch.float32 for state in states)


FIELDS = list(scenes.Scene.__dataclass_fields__)
values = st.floats() | odd | st.sampled_from(["dog", "hat", "none", "left", "running", "city", "blue"])


@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), st.floats(-1000, 1000), max_size=4),
    size=st.sampled_from([8, 31, 128]),
)
@example({"x": 1000.0, "size": 1e-300}, 8)
def test_scenes_far_from_the_usual(fields, size):
    """Far larger numbers made the renderer panic."""
    scene = or_one_sentence(lambda: scenes.Scene(**fields))
    assert scene is None or scene.render(size).size == (size, size)


@example(fields={"accessory": np.array([1.0, 2.0])}, size=8, part="body", mention=None)
@example(fields={}, size=8, part=np.array([1.0, 2.0]), mention=None)
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), values, max_size=2),
    size=st.sampled_from([8, 31]) | odd,
    part=st.sampled_from(scenes.PARTS) | odd,
    mention=st.none() | st.lists(st.sampled_from([*scenes.ATTRIBUTES, "x"]) | odd, max_size=2),
)
def test_scenes(fields, size, part, mention):
    scene = or_one_sentence(lambda: scenes.Scene(**fields))
    if scene is not None:
        image = or_one_sentence(lambda: scene.render(size))
        mask = or_one_sentence(lambda: scene.mask(part, size))
        assert image is None or (image.mode, image.size) == ("RGB", (size, size))
        assert mask is None or (mask.mode, mask.size) == ("L", (size, size))
        caption = or_one_sentence(lambda: scene.caption(attributes=mention))
        assert caption is None or caption.startswith("a")


def test_scenes_drawn_at_random_and_their_sheet():
    for wrong in (3, "x", None, np.random.default_rng(0)):
        with one_sentence("random.Random(0)"):
            scenes.random_scene(wrong)
    for arguments in ([], 1), ([PICTURE], 0), ([PICTURE], -1), ([PICTURE], 1, -50):
        with one_sentence("at least one picture"):
            scenes.contact_sheet(*arguments)

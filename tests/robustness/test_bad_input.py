"""Whatever the public functions are given: the right kind of result, or one clear sentence, before any work.

First tables of wrong values, one per function, with a word that the sentence must hold. Then hypothesis makes cases
up: `make test` tries a few, always the same; `make test-long` searches.
"""

from __future__ import annotations

import io
import math
import random
import re
import struct
import zlib
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from numbers import Integral

import numpy as np
import pytest
import torch
from helpers import noise, one_sentence, or_one_sentence
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ldm_course import samplers, scenes
from ldm_course.images import latent_mask, load_image, to_pil, to_rgb, to_tensor, worked_size
from ldm_course.model import encode_prompt
from ldm_course.pipelines import img2img, inpaint, txt2img
from ldm_course.sampling import denoise
from ldm_course.schedule import NoiseSchedule
from ldm_course.text import tokenize

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

# ---- tables of wrong values ------------------------------------------------------------------------------------


def box_mask(width: int = 64, height: int = 64) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    return mask


def gradient(width: int = 64, height: int = 64) -> Image.Image:
    """An image in colours."""
    grey = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_180), grey.point(lambda value: 128)))


def with_hole() -> Image.Image:
    """An image with its lower half erased, as an editor saves it: not a mask."""
    image = gradient().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 32, 64, 64))
    return image


FUNCTIONS = {  # with good arguments; a table below replaces some of them
    "txt2img": (txt2img, {"prompt": "a dog"}),
    "img2img": (img2img, {"prompt": "a dog", "image": gradient()}),
    "inpaint": (inpaint, {"prompt": "a dog", "image": gradient(), "mask_image": box_mask()}),
    "denoise": (denoise, {"x_T": noise(2, 4, 8, 6), "context": noise(2, 77, 24), "timesteps": [981, 481, 1]}),
    "encode_prompt": (encode_prompt, {"prompts": ["a dog"]}),
    "tokenize": (tokenize, {"prompts": ["a dog"]}),
    "unet": (lambda model, context: model.unet(noise(2, 4, 8, 8), 5, context), {}),
    "NoiseSchedule": (NoiseSchedule, {}),
    "timesteps": (NoiseSchedule().timesteps, {"num_inference_steps": 10}),
    "alpha_bar": (NoiseSchedule().alpha_bar, {}),
    "add_noise": (NoiseSchedule().add_noise, {"x0": noise(2, 4, 3, 3), "noise": noise(2, 4, 3, 3)}),
    "velocity": (NoiseSchedule().velocity, {"x0": noise(2, 4, 3, 3), "noise": noise(2, 4, 3, 3)}),
    "to_tensor": (to_tensor, {}),
    "to_rgb": (to_rgb, {}),
    "latent_mask": (latent_mask, {}),
    "worked_size": (worked_size, {"area": 128**2}),
    "load_image": (load_image, {}),
    "to_pil": (to_pil, {}),
    "Scene": (scenes.Scene, {}),
    "Scene.render": (scenes.Scene().render, {}),
    "Scene.mask": (scenes.Scene().mask, {}),
    "Scene.caption": (scenes.Scene().caption, {}),
    "random_scene": (scenes.random_scene, {}),
    "contact_sheet": (scenes.contact_sheet, {"images": [Image.new("RGB", (8, 8))], "columns": 1}),
}
TASK_OPTIONS = [
    ("prompt", 3, "int"), ("prompt", b"a dog", "bytes"), ("prompt", [], "empty"),
    ("prompt", ["a dog", None], "NoneType"), ("prompt", "\ud800", "UTF-8"), ("model", "a dog", "ldm_course.load()"),
    ("negative_prompt", 0, "int"), ("negative_prompt", ["", ""], "2 negative prompts"),
    ("num_inference_steps", 1001, "1 to 1000"), ("num_inference_steps", 1000, "timestep_spacing"),
    ("num_inference_steps", 2.5, "whole number"),
    ("guidance_scale", math.nan, "finite"), ("guidance_scale", "7", "finite"), ("guidance_scale", 1e6, "10000"),
    ("seed", -1, "whole number"), ("seed", "1", "whole number"), ("seed", 2**63, "63"),
    ("generator", 5, "torch.Generator"), ("generator", [None], "torch.Generator"),
    ("generator", [torch.Generator()] * 2, "1 images"),
    ("scheduler", "pndm", "'ddim'"), ("scheduler", samplers.ddim, "'ddim'"),
    ("timestep_spacing", "karras", "'leading'"),
]  # fmt: skip
STRENGTHS = [("strength", value, "from 0") for value in (-0.1, 1.1, math.nan, "0.5")] + [
    ("strength", 0.01, "less than one step")
]
NOT_IMAGES = ("dog.png", None, np.zeros((64, 64, 3), dtype=np.uint8))
IMAGES = [("image", value, "PIL image") for value in (*NOT_IMAGES, [None])] + [
    ("image", [gradient()] * 2, "list of 2")
]
TABLES = {
    "txt2img": TASK_OPTIONS + [
        *((name, value, "multiple of 8") for name in ("height", "width")
          for value in (0, -8, 60, 64.0, "64", 8 * 10**18)),
        *(("latents", torch.zeros(shape), "(1, 4, 8, 8)") for shape in ((1, 4, 8, 9), (2, 4, 8, 8), (4, 8, 8))),
        ("latents", [0.0], "list"),
    ],
    "img2img": TASK_OPTIONS + STRENGTHS + IMAGES + [("image", gradient(4, 64), "at least 8")],
    "inpaint": TASK_OPTIONS + STRENGTHS + IMAGES + [
        *(("mask_image", value, "PIL image") for value in (*NOT_IMAGES, [None])),
        ("mask_image", [box_mask()] * 2, "list of 2"), ("mask_image", box_mask(32, 64), "32 x 64"),
        ("mask_image", Image.new("L", (64, 64)), "empty"),
        ("mask_image", gradient(), "ImageOps.invert"), ("mask_image", with_hole(), "ImageOps.invert"),
    ],
    "denoise": [
        ("model", "a dog", "ldm_course.load()"),
        ("timesteps", [1, 481], "high to low"), ("timesteps", [481, 481], "high to low"),
        ("timesteps", [1000], "no timestep 1000"), ("timesteps", [-1], "no timestep -1"),
        *(("timesteps", value, "whole numbers") for value in ([1.5], 5, None)),
        ("guidance_scale", math.nan, "finite"), ("guidance_scale", "7", "finite"),
        ("guidance_scale", 2.0, "negative_context"), ("negative_context", noise(1, 77, 24), "(1, 77, 24)"),
        ("x_T", noise(1, 4, 8, 6), "(1, 4, 8, 6)"), ("x_T", noise(4, 8, 6), "(4, 8, 6)"), ("x_T", [0.0], "list"),
        ("x_T", noise(2, 3, 8, 6), "channels"), ("context", noise(2, 77, 23), "23"), ("context", None, "NoneType"),
        ("generator", [torch.Generator()] * 3, "2 images"), ("generator", 0, "torch.Generator"),
        ("step", "ddim", "function"), ("step", None, "function"), ("step", lambda now: now.x_t, "before, noise"),
        ("after_step", 5, "function"), ("after_step", lambda x: x, "t_prev"),
    ],
    "encode_prompt": [
        ("prompts", "a dog", "write ['a dog']"), ("prompts", ["a dog", 3], "int"), ("prompts", [], "empty list"),
        ("prompts", None, "NoneType"), ("model", "a dog", "ldm_course.load()"),
    ],
    "tokenize": [("prompts", "a dog", "write ['a dog']"), ("prompts", ["\udcff"], "UTF-8")],
    "unet": [("context", noise(1, 77, 24), "one text for each latent")],
    "NoiseSchedule": [
        ("num_train_timesteps", 0, "1 to 100000"), ("num_train_timesteps", 10.0, "whole number"),
        ("beta_start", 0.0, "beta_start"), ("beta_start", math.nan, "beta_start"), ("beta_end", 1.0, "beta_end"),
        ("beta_end", 0.0001, "beta_end"), ("beta_schedule", "squaredcos_cap_v2", "'linear'"),
        ("prediction_type", "sample", "'epsilon'"), ("timestep_spacing", "karras", "'trailing'"),
        ("steps_offset", -1, "0 to 999"), ("steps_offset", 1000, "0 to 999"),
    ],
    "timesteps": [
        *(("num_inference_steps", value, "1 to 1000") for value in (0, -1, 1001, 20.0, "20", None)),
        ("num_inference_steps", 1000, "offset 1"),
        ("spacing", "karras", "'linspace'"), ("spacing", "", "'linspace'"),
    ],
    "alpha_bar": [("t", -2, "no timestep -2"), ("t", 1000, "no timestep 1000")],
    "add_noise": [("t", value, "0 to 999") for value in (-1, 1000, torch.tensor([5, -1]), torch.tensor([5, 1000]))],
    "velocity": [("t", 1000, "0 to 999")],
    "to_tensor": [("images", value, "PIL image") for value in ("dog", [None], [np.zeros((8, 8, 3))])],
    "to_rgb": [
        *(("image", value, type(value).__name__) for value in (*NOT_IMAGES, torch.zeros(1, 3, 8, 8))),
        ("image", Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)), "nan"),
        ("image", Image.fromarray(np.full((8, 8), -1, dtype=np.float32)), "-1"),
        ("image", Image.fromarray(np.full((8, 8), 10**6, dtype=np.int32)), "65535"),
    ],
    "latent_mask": [
        ("mask", Image.new("L", (16, 16), 100), "empty"), ("mask", Image.new("L", (4, 64), 255), "each side"),
        ("mask", ImageOps.expand(Image.new("L", (3, 3), 255), (3, 3, 10, 10)), "too thin"),
        ("mask", None, "PIL image"), ("mask", gradient(), "ImageOps.invert"),
    ],
    "load_image": [
        *(("path", path, "") for path in (None, 3, [], "a\0b", "\ud800", "x" * 5000, "~nobody/x.png", "", b"\xff")),
        *(("path", path, "not an image") for path in ("/dev/null", ".", __file__)),
        ("path", "missing.png", "no file 'missing.png'"),
    ],
    "to_pil": [("x", torch.full((1, 3, 8, 8), value), "NaN") for value in (math.nan, math.inf)],
    "Scene": [
        ("animal", "fox", "dog, cat"), ("colour", None, "white"), ("accessory", "monocle", "glasses"),
        ("action", "flying", "sitting"), ("place", "", "beach"), ("facing", "up", "left"),
        ("tilt", math.nan, "-1000 to 1000"), ("size", "big", "-1000 to 1000"), ("size", 0, "above 0"),
    ],
    "Scene.render": [("size", size, "positive whole number") for size in (0, -3, 12.5, "128", True, 8193)],
    "Scene.mask": [("part", "wing", "face"), ("part", "accessory", "no accessory")],
    "Scene.caption": [("attributes", ("mood",), "animal")],
    "random_scene": [("rng", value, "random.Random(0)") for value in (3, "x", None, np.random.default_rng(0))],
    "contact_sheet": [("images", [], "one image"), ("columns", 0, "one column"), ("gap", -50, "gap")],
}  # fmt: skip
REFUSALS = [(function, *case) for function, table in TABLES.items() for case in table]


@pytest.fixture
def idle(model, monkeypatch):
    """A model that fails the test when one of its networks runs."""
    for part in (*model.unet.children(), model.vae.encoder, model.vae.decoder, model.text_encoder):
        if hasattr(part, "forward"):
            monkeypatch.setattr(part, "forward", lambda *_, **__: pytest.fail("work was done before the check"))
    return model


IDS = [f"{case[0]}-{case[1]}-{i}" for i, case in enumerate(REFUSALS)]


@pytest.mark.parametrize("function, argument, value, word", REFUSALS, ids=IDS)
def test_wrong_values(idle, function, argument, value, word):
    call, arguments = FUNCTIONS[function]
    first = {"tokenizer": idle.tokenizer} if function == "tokenize" else {}
    if function in ("txt2img", "img2img", "inpaint", "denoise", "encode_prompt", "unet"):
        first = {"model": idle}
    with one_sentence(word):
        call(**first | arguments | {argument: value})


def test_arguments_that_do_not_fit_each_other(idle, pipe):
    """Two wrong together; and diffusers' VAE in place of ours: the sentence says how to make ours."""
    with one_sentence("seed", "generator"):
        txt2img(idle, "a dog", seed=1, generator=torch.Generator())
    with one_sentence("64 x 64", "32 x 64"):
        img2img(idle, ["a", "b"], [gradient(), gradient(32, 64)])
    with one_sentence("list of 1", "2 prompts"):
        inpaint(idle, ["a", "b"], gradient(), [box_mask()])
    for width, height in ((7, 100), (100, 7), (4000, 10)):
        with one_sentence(f"{width} x {height}", "at least 8"):
            worked_size(width, height, 128**2)
    for part, value, word in (("vae", pipe.vae, "load_state_dict"), ("unet", None, "can be called")):
        with one_sentence(word):
            txt2img(replace(idle, **{part: value}), "a dog")


@pytest.mark.parametrize("result", [lambda x: None, lambda x: [1.0], lambda x: x[:1]], ids=["None", "list", "fewer"])
@pytest.mark.parametrize("name", ["The UNet", "step", "after_step"])
def test_wrong_results_of_a_learners_functions(model, name, result):
    """A step, an after_step and a UNet of your own must return a tensor of x_t's shape."""
    functions = {
        "The UNet": lambda x_t, t, context: result(x_t),
        "step": lambda now, alpha_bar, before, noise: result(now.x_t),
        "after_step": lambda x, t_prev: result(x),
    }
    options = {name: functions[name]} if name != "The UNet" else {}
    model = model if options else replace(model, unet=functions[name])
    with one_sentence(name, "(2, 4, 8, 6)"):
        list(denoise(model, **FUNCTIONS["denoise"][1], **options))


def test_diffusers_unet_is_to_be_wrapped(model, pipe):
    with one_sentence("The UNet must return a tensor", "lambda", ".sample"):
        txt2img(replace(model, unet=pipe.unet), "a dog", num_inference_steps=2)


# ---- what hypothesis makes up ----------------------------------------------------------------------------------

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
def images(draw: st.DrawFn) -> Image.Image:
    """Of any mode and size, with any bytes for pixels, and sometimes with odd metadata beside them."""
    mode, size = draw(st.sampled_from(MODES)), draw(st.sampled_from(SIZES))
    bits = 16 if mode.startswith("I;") else BITS.get(mode, 32)
    length = (size[0] * bits + 7) // 8 * size[1]
    pixels = random.Random(draw(st.integers(0, 5))).randbytes(length)
    image = Image.frombytes(mode, size, pixels) if 0 not in size else Image.new(mode, size)
    note = draw(st.sampled_from([None, 0, 300, (1, 2, 3), b"", b"\0\xff", "x", -1]))
    if note is not None:
        image.info["transparency"] = note
    if draw(st.booleans()):
        image.getexif()[0x0112] = draw(st.sampled_from([1, 3, 6, 8, 99, "x"]))
    return image


def assert_image(image: Image.Image, largest: int = 64**2) -> None:
    assert image.mode == "RGB" and image.width % 8 == image.height % 8 == 0
    assert 0 < image.width * image.height <= largest


# ---- the three tasks -------------------------------------------------------------------------------------------

IMAGE = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
MASK = Image.new("L", (16, 16), 255)
TASKS = {
    "txt2img": lambda model, prompt, **options: txt2img(model, prompt, height=16, width=16, **options),
    "img2img": lambda model, prompt, **options: img2img(model, prompt, IMAGE, **options),
    "inpaint": lambda model, prompt, **options: inpaint(model, prompt, IMAGE, MASK, **options),
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
        assert_image(image)


@each_task
@given(prompts=texts | st.lists(texts, max_size=3) | st.lists(texts | odd, max_size=3).map(tuple) | odd)
def test_prompts(model, task, prompts):
    before = list(prompts) if isinstance(prompts, list) else prompts
    result = or_one_sentence(lambda: TASKS[task](model, prompts, num_inference_steps=2, guidance_scale=1, seed=0))
    if isinstance(prompts, (str, list)) and all(isinstance(prompt, str) for prompt in prompts):
        assert prompts == before
        assert (result is None) == (prompts == [] or bool(re.search("[\ud800-\udfff]", "".join(prompts))))
    if result is not None:
        images = result if isinstance(result, list) else [result]
        assert len(images) == (1 if isinstance(prompts, str) else len(prompts))
        for image in images:
            assert_image(image)


small = odd.filter(lambda value: not isinstance(value, Integral) or value <= 64)


@given(side=st.integers(-100, 64) | small)
def test_sizes(model, side):
    image = or_one_sentence(lambda: txt2img(model, "a dog", height=side, width=8, num_inference_steps=1, seed=0))
    assert (image is not None) == (side is None or (isinstance(side, int) and side > 0 and side % 8 == 0))


@given(image=images())
def test_images(model, image):
    before = image.mode, image.size, image.tobytes(), dict(image.info)
    result = or_one_sentence(lambda: img2img(model, "a dog", image, num_inference_steps=2, seed=0))
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before
    if result is not None:
        assert_image(result)
    elif min(image.size) >= 8 and image.size != (2000, 10) and image.mode not in ("La", "I", "F"):
        assert image.info or image.getexif(), "a plain image of fair size was refused"


@given(mask=images(), composite=st.booleans())
def test_masks(model, mask, composite):
    image = Image.new("RGB", mask.size, "orange")
    before = mask.mode, mask.size, mask.tobytes()
    options = {"num_inference_steps": 1, "seed": 0, "composite": composite}
    result = or_one_sentence(lambda: inpaint(model, "a dog", image, mask, **options))
    assert (mask.mode, mask.size, mask.tobytes()) == before
    if result is not None:
        assert_image(result)


def test_numbers_that_grow_too_large_make_no_black_image(model):
    with one_sentence("NaN", "guidance_scale"):
        txt2img(model, "a dog", latents=torch.full((1, 4, 8, 8), math.inf), num_inference_steps=1)
    assert to_pil(torch.tensor([-2.0, 0, 2.0]).reshape(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 128, 255)


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
        "PNG of 16 bits": in_format("PNG", deep), "animated PNG": in_format("PNG", noisy, **frames),
        "JPEG": in_format("JPEG", noisy, exif=exif), "JPEG in CMYK": in_format("JPEG", noisy.convert("CMYK")),
        "WebP": in_format("WEBP", noisy, exif=exif), "animated WebP": in_format("WEBP", noisy, **frames),
        "animated GIF": in_format("GIF", noisy, **frames), "BMP": in_format("BMP", noisy),
        "TIFF": in_format("TIFF", noisy, exif=exif, compression="tiff_lzw"),
        "TIFF of 16 bits": in_format("TIFF", deep), "PPM": in_format("PPM", noisy), "TGA": in_format("TGA", noisy),
        "ICO": in_format("ICO", noisy),
    }  # fmt: skip


FILES = files()
FORMATS = pytest.mark.parametrize("name", FILES)


@FORMATS
def test_whole_files_open_and_leave_no_file_open(name, tmp_path, recwarn):
    (tmp_path / "image").write_bytes(FILES[name])
    image = load_image(tmp_path / "image")
    assert to_rgb(image).size in {(24, 24), (8, 8), (16, 16)}
    assert getattr(image, "fp", None) is None
    (tmp_path / "image").unlink()
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


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_decompression_bombs_are_refused_at_once(tmp_path):
    """69 bytes that ask for 10 GB of pixels, and a short text of 3 MB."""
    small = in_format("PNG", Image.new("RGB", (1, 1)))
    pixels = small[:8] + chunk(b"IHDR", struct.pack(">II", 60_000, 60_000) + small[24:29]) + small[33:]
    text = small[:33] + chunk(b"zTXt", b"bomb\0\0" + zlib.compress(b" " * 3_000_000)) + small[33:]
    for content, word in ((pixels, "DecompressionBombError"), (text, "not an image")):
        (tmp_path / "bomb.png").write_bytes(content)
        with one_sentence("bomb.png", word):
            load_image(tmp_path / "bomb.png")


def test_a_cut_file_is_refused_by_load_image_and_by_the_tasks(model, tmp_path):
    """PIL reads the pixels only when they are asked for."""
    (tmp_path / "cut.png").write_bytes(FILES["PNG"][:500])
    with one_sentence("not an image"):
        load_image(tmp_path / "cut.png")
    with Image.open(tmp_path / "cut.png") as image, one_sentence("cannot be read", "truncated"):
        img2img(model, "a dog", image)


# ---- the loop, scenes ------------------------------------------------------------------------------------------


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
    options = {"negative_context": negative, "guidance_scale": scale, "generator": generator, "step": samplers.ddpm}
    states = or_one_sentence(lambda: list(denoise(model, x_T, context, timesteps, **options)))
    if states is not None:
        assert [state.t for state in states] == [*map(int, timesteps), -1]
        assert all(state.x_t.shape == x_T.shape and state.x_t.dtype == torch.float32 for state in states)


FIELDS = list(scenes.Scene.__dataclass_fields__)
values = st.floats(-1000, 1000) | odd | st.sampled_from(["dog", "hat", "none", "left", "running", "city", "blue"])


@example({"accessory": np.array([1.0, 2.0])}, 8, "body", None)
@example({}, 8, np.array([1.0, 2.0]), None)
@example({"x": 1000.0, "size": 1e-300}, 8, "body", None)  # such numbers made the renderer panic
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), values, max_size=4),
    size=st.sampled_from([8, 31, 128]) | odd,
    part=st.sampled_from(scenes.PARTS) | odd,
    mention=st.none() | st.lists(st.sampled_from([*scenes.ATTRIBUTES, "x"]) | odd, max_size=2),
)
def test_scenes(fields, size, part, mention):
    scene = or_one_sentence(lambda: scenes.Scene(**fields))
    if scene is not None:
        image = or_one_sentence(lambda: scene.render(size))
        mask = or_one_sentence(lambda: scene.mask(part, size))
        assert (
            (image.mode, image.size) == ("RGB", (size, size))
            if image
            else type(size) is not int or size not in (8, 31, 128)
        )
        assert mask is None or (mask.mode, mask.size) == ("L", (size, size))
        caption = or_one_sentence(lambda: scene.caption(attributes=mention))
        assert caption is None or caption.startswith("a")

"""The three tasks make diffusers' images, and the same image for the same request."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from helpers import default_dtype, noise, our_model, pixel_difference, tiny_pipeline
from PIL import Image, ImageFilter

from ldm_course.images import latent_mask, to_pil, to_tensor
from ldm_course.pipelines import SAMPLERS, img2img, inpaint, txt2img

pytestmark = pytest.mark.filterwarnings("ignore:With so few steps")

STEPS = 10
STRENGTHS = (0.3, 0.6, 1.0)
GUIDANCE = (1.0, 7.5)


def seeded(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image_of(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def box_mask(width: int = 64, height: int = 64) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 4, height // 3, width, height))
    return mask


@pytest.fixture(scope="module")
def img2img_pipe(pipe):
    return quiet(StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False))


@pytest.fixture(scope="module")
def inpaint_pipe(pipe):
    return quiet(StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


# The same images as diffusers


def assert_same_as_diffusers(pipe, task, model, prompt, generator=seeded, **options) -> list[Image.Image]:
    """Both take the same arguments. Returns our images, as a list."""
    theirs = pipe(prompt, generator=generator(), **options).images
    ours = task(model, prompt, generator=generator(), **options)
    ours = ours if isinstance(ours, list) else [ours]
    assert [pixel_difference(a, b) <= 1 for a, b in zip(ours, theirs, strict=True)] == [True] * len(ours)
    return ours


def two_seeds() -> list[torch.Generator]:
    return [seeded(1), seeded(2)]


@pytest.mark.parametrize("guidance_scale", GUIDANCE)
def test_txt2img_is_diffusers(pipe, model, guidance_scale):
    options = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale}
    (image,) = assert_same_as_diffusers(pipe, txt2img, model, "a dog with glasses", **options)
    assert np.asarray(image).std() > 20  # not a blank

    options |= {"latents": noise(2, 4, 8, 8, seed=3), "negative_prompt": ["ugly", ""]}
    assert_same_as_diffusers(pipe, txt2img, model, ["a dog", "a cat, running"], **options)
    assert torch.equal(options["latents"], noise(2, 4, 8, 8, seed=3))


@pytest.mark.parametrize("height, width", [(64, 96), (40, 72)])
def test_txt2img_of_other_sizes_is_diffusers(pipe, model, height, width):
    options = {"height": height, "width": width, "num_inference_steps": 4}
    image, _ = assert_same_as_diffusers(pipe, txt2img, model, ["a dog", "a cat"], two_seeds, **options)
    assert image.size == (width, height)


@pytest.mark.parametrize("guidance_scale", GUIDANCE)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_img2img_is_diffusers(img2img_pipe, model, strength, guidance_scale):
    options = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale, "strength": strength}
    assert_same_as_diffusers(img2img_pipe, img2img, model, "a dog", image=image_of(), **options)
    options["image"] = [image_of(seed=1), image_of(seed=2)]
    for generator in (seeded, two_seeds):
        assert_same_as_diffusers(img2img_pipe, img2img, model, ["a dog", "a cat"], generator, **options)


@pytest.mark.parametrize("guidance_scale", GUIDANCE)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_inpaint_is_diffusers(inpaint_pipe, model, strength, guidance_scale):
    options = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale, "strength": strength}
    for mask in (box_mask(), box_mask().filter(ImageFilter.GaussianBlur(6))):
        options |= {"image": image_of(), "mask_image": mask}
        assert_same_as_diffusers(inpaint_pipe, inpaint, model, "a dog", **options)


def test_one_generator_and_one_image_for_two_prompts(img2img_pipe, inpaint_pipe, model):
    """diffusers draws the image's latent once, then the noise of the batch; so do we."""
    prompts, options = ["a dog", "a cat"], {"image": image_of(), "num_inference_steps": 5, "strength": 0.6}
    assert_same_as_diffusers(inpaint_pipe, inpaint, model, prompts, mask_image=box_mask(), **options)
    assert_same_as_diffusers(img2img_pipe, img2img, model, prompts, **options)
    options["image"] = [image_of()] * 2  # one generator each: each draws its own latent of the one image
    twice = assert_same_as_diffusers(img2img_pipe, img2img, model, prompts, two_seeds, **options)
    once = img2img(model, prompts, generator=two_seeds(), **options | {"image": image_of()})
    assert [pixel_difference(a, b) for a, b in zip(once, twice)] == [0, 0]


def test_img2img_of_other_sizes_is_diffusers(img2img_pipe, model):
    """Rounded down to a multiple of 8 with the same filter."""
    options = {"image": image_of(72, 48).crop((0, 0, 69, 45)), "num_inference_steps": 5, "strength": 0.8}
    (image,) = assert_same_as_diffusers(img2img_pipe, img2img, model, "a dog", **options)
    assert image.size == (64, 40)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_other_schedules_are_diffusers(tmp_path, prediction, spacing, set_alpha_to_one):
    """Under trailing and linspace spacing only where n divides 1000 (see test_samplers)."""
    settings = {"prediction_type": prediction, "timestep_spacing": spacing, "set_alpha_to_one": set_alpha_to_one}
    pipe = quiet(tiny_pipeline(tmp_path, **settings))
    steps = 1 if spacing == "linspace" else 10
    assert_same_as_diffusers(pipe, txt2img, our_model(pipe), "a dog", num_inference_steps=steps)


# Seeds, batches, purity


STEPS_5 = {"num_inference_steps": 5}
TASKS = {
    "txt2img": lambda model, prompt, **options: txt2img(model, prompt, **STEPS_5 | options),
    "img2img": lambda model, prompt, **options: img2img(model, prompt, image_of(), **STEPS_5 | options),
    "inpaint": lambda model, prompt, **options: inpaint(model, prompt, image_of(), box_mask(), **STEPS_5 | options),
}
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@each_task
@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_a_batch_equals_its_singles(model, task, scheduler):
    """Image i of seed s is the single image of seed s + i, whatever its neighbours."""
    prompts = ["a dog", "a cat with a hat", "a dog"]
    batch = task(model, prompts, seed=7, scheduler=scheduler)
    assert isinstance(batch, list) and len(batch) == 3
    for i, prompt in enumerate(prompts):
        single = task(model, prompt, seed=7 + i, scheduler=scheduler)
        assert isinstance(single, Image.Image) and pixel_difference(single, batch[i]) <= 1
    assert pixel_difference(batch[0], batch[2]) > 10


@each_task
def test_seeds(model, task):
    """The same seed gives the same image, as does its generator; without either, torch's global seed decides."""
    first = task(model, "a dog", seed=1)
    assert pixel_difference(first, task(model, "a dog", generator=seeded(1))) == 0
    assert pixel_difference(first, task(model, "a dog", seed=2)) > 10
    (only,) = task(model, ["a dog"], seed=1)  # a list of one is a list
    assert pixel_difference(first, only) == 0
    torch.manual_seed(0)
    anyhow = task(model, "a dog")
    assert pixel_difference(anyhow, task(model, "a dog")) > 10
    torch.manual_seed(0)
    assert pixel_difference(anyhow, task(model, "a dog")) == 0


@each_task
def test_every_option_matters(model, task):
    plain = task(model, "a dog", seed=1)
    assert pixel_difference(plain, task(model, "a dog", seed=1, negative_prompt="")) == 0
    assert pixel_difference(plain, task(model, "a cat", seed=1)) > 1
    for option in ({"negative_prompt": "a cat"}, {"guidance_scale": 2.0}, {"timestep_spacing": "trailing"}):
        assert pixel_difference(plain, task(model, "a dog", seed=1, **option)) > 1


@each_task
def test_the_model_is_not_touched(model, task):
    def weights():
        parts = (model.unet, model.vae, model.text_encoder)
        return [weight for part in parts for weight in part.parameters()]

    before = [weight.clone() for weight in weights()]
    model.unet.train()
    try:
        task(model, "a dog", seed=0)
        assert model.unet.training and not model.vae.training
    finally:
        model.unet.eval()
    assert all(torch.equal(a, b) for a, b in zip(before, weights())) and torch.is_grad_enabled()


# Images: strength, mask, size


def test_strength_0_is_the_vae_alone(model):
    """diffusers refuses strength 0; here the image goes through the VAE and back, and the UNet has no say."""
    image, generator = image_of(), seeded(1)
    posterior = model.vae.encode(to_tensor(image))
    z = posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
    (expected,) = to_pil(model.vae.decode(z))
    assert pixel_difference(img2img(model, "a dog", image, strength=0, seed=1), expected) <= 1
    assert pixel_difference(inpaint(model, "a dog", image, box_mask(), strength=0, seed=1), expected) <= 1


def test_composite_puts_the_original_back(model):
    """Exactly outside the mask, in proportion where the mask is soft; for each image of a batch."""
    images, masks = [image_of(seed=1), image_of(seed=2)], [box_mask(), Image.new("L", (64, 64), 128)]
    options = {"num_inference_steps": 5, "seed": 0}
    plain, exact = (
        inpaint(model, ["a dog", "a cat"], images, masks, composite=composite, **options)
        for composite in (False, True)
    )
    for image, mask, repainted, mixed in zip(images, masks, plain, exact):
        original, repainted, mixed = (np.asarray(each, dtype=float) for each in (image, repainted, mixed))
        share = np.asarray(mask, dtype=float)[:, :, None] / 255
        assert np.abs(mixed - (original + (repainted - original) * share)).max() <= 1
        kept = (share == 0)[:, :, 0]
        assert np.array_equal(mixed[kept], original[kept])
    kept = np.asarray(masks[0]) == 0
    assert np.abs(np.subtract(plain[0], images[0], dtype=float)[kept]).max() > 10  # without: through the VAE


def test_latents_outside_the_mask_are_those_of_the_image(model, monkeypatch):
    """What is decoded is, outside the mask, the image's clean latent: no noise of the last level is left on it."""
    image, mask, decoded, decode = image_of(), box_mask(), [], model.vae.decode
    monkeypatch.setattr(model.vae, "decode", lambda z: decoded.append(z) or decode(z))
    inpaint(model, "a dog", image, mask, num_inference_steps=5, seed=1)
    z = model.vae.encode(to_tensor(image)).sample(noise(1, 4, 8, 8, seed=1))  # the generator's first draw
    outside = (latent_mask(mask) == 0).expand_as(z)
    torch.testing.assert_close(decoded[0][outside], z[outside], atol=1e-5, rtol=1e-5)
    assert (decoded[0] - z)[~outside].abs().min() > 1e-3


@pytest.mark.parametrize("size, worked", [((50, 70), (48, 64)), ((400, 300), (72, 48)), ((16, 8), (16, 8))])
def test_sizes(model, size, worked):
    """One rule for both: down to a multiple of 8, and down to the model's area; never up."""
    options = {"num_inference_steps": 2, "seed": 0}
    image, mask = image_of(80, 80).resize(size), Image.new("L", size, 255)
    assert img2img(model, "a dog", image, **options).size == worked
    for composite in (False, True):
        assert inpaint(model, "a dog", image, mask, composite=composite, **options).size == worked
    assert txt2img(model, "a dog", height=worked[1], width=worked[0], **options).size == worked


@each_task
def test_a_unet_of_your_own(model, task):
    """Any callable that returns a tensor."""
    own = replace(model, unet=lambda x_t, t, context: 0.5 * x_t + context.mean())
    images = [task(own, "a dog", seed=1), task(own, "a dog", seed=1), task(model, "a dog", seed=1)]
    assert images[0].size == (64, 64)
    assert pixel_difference(*images[:2]) == 0 and pixel_difference(*images[1:]) > 10


def test_diffusers_unet_in_a_lambda(pipe, model):
    own = replace(model, unet=lambda *inputs: pipe.unet(*inputs).sample)
    images = [txt2img(each, "a dog", seed=1, num_inference_steps=STEPS) for each in (own, model)]
    assert pixel_difference(*images) <= 1


# torch's defaults, warnings, memory


@each_task
@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_torchs_defaults_change_nothing(model, task, scheduler):
    """The device "meta" stands for "cuda", a device where the model is not. Without a seed, too."""
    options = {"scheduler": scheduler, "num_inference_steps": 3}
    before = task(model, "a dog", seed=1, **options)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        with default_dtype(dtype):
            assert pixel_difference(before, task(model, "a dog", seed=1, **options)) == 0
    with torch.device("meta"):
        assert pixel_difference(before, task(model, "a dog", seed=1, **options)) == 0
        assert task(model, "a dog", **options).size == (64, 64)


def test_steps_that_start_near_the_clean_end_give_a_warning(model):
    """Few "leading" steps start far below t = 999."""
    for steps, spacing, warned in ((1, None, True), (1, "trailing", False), (10, None, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            txt2img(model, "a dog", num_inference_steps=steps, timestep_spacing=spacing, seed=0)
        assert [str(each.message).count("With so few steps") for each in caught] == [1] * warned
        assert all(each.filename == __file__ for each in caught), "it points at the call"


def test_memory_that_runs_out_is_one_sentence_and_is_released(model, monkeypatch):
    held = []

    def forward(x_t, t, context):
        activations = torch.cat([x_t, x_t])
        held.extend([weakref.ref(activations), weakref.ref(context)])
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(model.unet, "forward", forward)
        with pytest.raises(MemoryError, match="fewer or smaller images") as caught:
            txt2img(model, "a dog", seed=0, num_inference_steps=2)
    assert caught.value.__suppress_context__ and [each() for each in held] == [None, None]
    assert txt2img(model, "a dog", seed=0, num_inference_steps=2).mode == "RGB"

"""The three tasks, each a short function around the one loop: text to image, image to image, in-painting.

Notebooks 04, 05 and 06. With the same weights and the same noise they paint diffusers' pictures
(tests/test_pipelines.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from ldm_course.errors import InputError, memory_error_in_a_sentence, shown
from ldm_course.images import latent_mask, resized, to_grey, to_pil, to_rgb, to_tensor, worked_size
from ldm_course.inputs import (
    SCHEDULERS,
    check_choice,
    check_generator,
    check_guidance,
    check_model,
    check_prompts,
    check_seed,
    check_strength,
)
from ldm_course.sampling import AfterStep, Generators, denoise, draw_noise
from ldm_course.text import encode_prompt
from ldm_course.vae import DiagonalGaussian

if TYPE_CHECKING:
    from ldm_course.checkpoint import LatentDiffusion

NUM_INFERENCE_STEPS = 50
GUIDANCE_SCALE = 7.5
IMG2IMG_STRENGTH = 0.6
LARGEST_SIDE = 8192  # pixels; far beyond what a model was trained at

Prompt = str | list[str]
Pictures = Image.Image | list[Image.Image]


def strength_timesteps(timesteps: list[int], strength: float) -> list[int]:
    """The timesteps left when a picture is not noised all the way: the last `strength` of them, rounded down."""
    return timesteps[len(timesteps) - int(len(timesteps) * strength) :]


def keep_outside(x: Tensor, z: Tensor, noise: Tensor, m: Tensor, alpha_bar: float) -> Tensor:
    """x where the mask m is 1; where it is 0, the picture's latent z at x's noise level (Lugmayr et al. 2022, eq. 8).

    x, z and noise are (b, c, h, w), m is (b or 1, 1, h, w). At alpha_bar = 1, the end, z is put back as it is.
    """
    return m * x + (1 - m) * (math.sqrt(alpha_bar) * z + math.sqrt(1 - alpha_bar) * noise)


@memory_error_in_a_sentence()
@torch.no_grad()
def txt2img(
    model: LatentDiffusion,
    prompt: Prompt,
    *,
    negative_prompt: Prompt | None = None,
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    seed: int | None = None,
    generator: Generators = None,
    scheduler: str = "ddim",
    timestep_spacing: str | None = None,
    height: int | None = None,
    width: int | None = None,
    latents: Tensor | None = None,
    progress: bool = False,
) -> Pictures:
    """Paint what the prompt says, from pure noise: one picture for a string, a list of pictures for a list.

    Args:
        model: from `ldm_course.load()`.
        prompt: a text, or a list of b texts.
        negative_prompt: what to steer away from, one text for all or one each; None is the empty text.
        num_inference_steps: 1 ... 999 (1000 with a spacing other than "leading"); more is slower and finer.
        guidance_scale: how much the text is exaggerated; 1 follows it plainly and takes half the time.
        seed: picture i is drawn from seed + i, so a batch equals its singles. None takes a random one.
        generator: a torch.Generator in place of the seed, drawn from in diffusers' order; or a list, one each.
        scheduler: "ddim", "ddpm", "euler" or "dpm++".
        timestep_spacing: "leading", "trailing" or "linspace"; None is the model's own.
        height, width: in pixels, multiples of 8; None is the size that the model was trained at.
        latents: the noise to start from, (b, 4, height/8, width/8), in place of a drawn one.
        progress: show a progress bar.

    Raises:
        InputError: if an argument is wrong; nothing has been computed then.
        MemoryError: if the memory ran out; what was computed is let go.
    """
    request = _check_request(
        model, prompt, negative_prompt, num_inference_steps, guidance_scale, seed, generator, scheduler,
        timestep_spacing, progress,
    )  # fmt: skip
    sides = _latent_side(model, "height", height), _latent_side(model, "width", width)
    shape = (len(request.prompts), model.vae.config.latent_channels, *sides)
    if latents is not None and (not isinstance(latents, Tensor) or tuple(latents.shape) != shape):
        has = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise InputError(f"latents are {has}; these prompts and this size need a tensor of shape {shape}.")
    x_T = draw_noise(shape, request.generator) if latents is None else latents
    return request.answer(request.paint(x_T, request.timesteps))


@memory_error_in_a_sentence()
@torch.no_grad()
def img2img(
    model: LatentDiffusion,
    prompt: Prompt,
    image: Pictures,
    *,
    strength: float = IMG2IMG_STRENGTH,
    negative_prompt: Prompt | None = None,
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    seed: int | None = None,
    generator: Generators = None,
    scheduler: str = "ddim",
    timestep_spacing: str | None = None,
    progress: bool = False,
) -> Pictures:
    """Repaint a picture after the prompt: noise is added to its latent, and taken away again (Meng et al. 2022).

    The picture is worked on, and returned, at its own size rounded down to a multiple of 8; one larger than the
    model's training pictures is shrunk to their area first (`images.worked_size`).

    Args:
        image: a PIL picture of any mode; or a list, one per prompt.
        strength: in [0, 1]; the share of the steps that is done. At 0 the picture only goes through the VAE and
            back (diffusers refuses that); even at 1 a trace of it stays, as alpha_bar is not 0 at the last timestep.
        Others as in `txt2img`.

    Raises:
        InputError: if an argument is wrong; nothing has been computed then.
        MemoryError: if the memory ran out; what was computed is let go.
    """
    request = _check_request(
        model, prompt, negative_prompt, num_inference_steps, guidance_scale, seed, generator, scheduler,
        timestep_spacing, progress,
    )  # fmt: skip
    check_strength(strength)
    timesteps = strength_timesteps(request.timesteps, strength)
    pictures = request.listed("image", image, to_rgb)
    pictures = resized(pictures, request.common_size(pictures))

    z, noise = request.encode(pictures)
    x_start = model.schedule.add_noise(z, noise, timesteps[0]) if timesteps else z
    return request.answer(request.paint(x_start, timesteps))


@memory_error_in_a_sentence()
@torch.no_grad()
def inpaint(
    model: LatentDiffusion,
    prompt: Prompt,
    image: Pictures,
    mask_image: Pictures,
    *,
    strength: float = 1.0,
    composite: bool = False,
    negative_prompt: Prompt | None = None,
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    seed: int | None = None,
    generator: Generators = None,
    scheduler: str = "ddim",
    timestep_spacing: str | None = None,
    progress: bool = False,
) -> Pictures:
    """Repaint the white part of a mask after the prompt, and keep the rest of the picture.

    After every step the latent outside the mask is replaced by the picture's own, at the noise level just reached
    (Lugmayr et al. 2022, eq. 8, without their resampling). The size is as in `img2img`.

    Args:
        image: a PIL picture of any mode; or a list, one per prompt.
        mask_image: white where to paint, of the picture's size; one for all, or one per prompt. It is made hard
            at one half, and only as fine as latent cells of 8 x 8 pixels.
        strength: as in `img2img`, but at exactly 1 the start is pure noise.
        composite: False returns the whole picture as decoded, so that also the kept part has gone through the
            VAE (as diffusers does). True puts the original pixels back outside the mask, softly if it is soft.
        Others as in `txt2img`.

    Raises:
        InputError: if an argument is wrong; nothing has been computed then.
        MemoryError: if the memory ran out; what was computed is let go.
    """
    request = _check_request(
        model, prompt, negative_prompt, num_inference_steps, guidance_scale, seed, generator, scheduler,
        timestep_spacing, progress,
    )  # fmt: skip
    check_strength(strength)
    timesteps = strength_timesteps(request.timesteps, strength)
    pictures, masks = request.listed("image", image, to_rgb), request.listed("mask_image", mask_image, to_grey)
    size = request.common_size(pictures + masks)
    pictures, masks = resized(pictures, size), resized(masks, size)
    m = torch.cat([latent_mask(mask, model.vae.downscale) for mask in masks]).to(model.device)  # (b or 1, 1, h, w)

    z, noise = request.encode(pictures)

    def after_step(x: Tensor, t_prev: int) -> Tensor:
        return keep_outside(x, z, noise, m, 1.0 if t_prev == -1 else model.schedule.alpha_bar(t_prev))

    if strength == 1:
        x_start = noise
    else:
        x_start = model.schedule.add_noise(z, noise, timesteps[0]) if timesteps else z
    painted = request.paint(x_start, timesteps, after_step)
    if composite:
        triples = zip(painted, pictures * len(painted), masks * len(painted))
        painted = [Image.composite(inside, outside, mask) for inside, outside, mask in triples]
    return request.answer(painted)


@dataclass(frozen=True)
class _Request:
    """What the three tasks share, checked. `single`: the prompt was one string, and so is the answer."""

    model: LatentDiffusion
    prompts: list[str]
    single: bool
    negative_prompts: list[str]
    timesteps: list[int]
    guidance_scale: float
    generator: torch.Generator | list[torch.Generator]
    scheduler: str
    progress: bool

    def listed(self, name: str, value: Pictures, convert: Callable[[Image.Image], Image.Image]) -> list[Image.Image]:
        """Pictures or masks, converted: one for all prompts, or one per prompt."""
        pictures = value if isinstance(value, (list, tuple)) else [value]
        if isinstance(value, (list, tuple)) and len(value) != len(self.prompts):
            raise InputError(f"{name} is a list of {len(value)}, which does not fit {len(self.prompts)} prompts.")
        return [convert(picture) for picture in pictures]

    def common_size(self, pictures: list[Image.Image]) -> tuple[int, int]:
        """The size at which pictures and masks of one and the same size are worked on."""
        width, height = pictures[0].size
        for other in pictures:
            if other.size != (width, height):
                raise InputError(
                    f"Pictures and masks of one call must have one size, but there are {width} x {height} and "
                    f"{other.width} x {other.height} pixels."
                )
        return worked_size(width, height, self.model.native_size**2, self.model.vae.downscale)

    def encode(self, pictures: list[Image.Image]) -> tuple[Tensor, Tensor]:
        """The pictures' latents, and noise for them: two of (b, 4, h/8, w/8), float32, drawn in this order."""
        model, each = self.model, isinstance(self.generator, list)
        with model.at_work(model.vae):  # one by one, as in `paint`
            each_one = [model.vae.encode(to_tensor(picture).to(model.device, model.dtype)) for picture in pictures]
        posterior = DiagonalGaussian(torch.cat([p.mean for p in each_one]), torch.cat([p.logvar for p in each_one]))
        shape = (len(self.prompts), *posterior.mean.shape[1:])
        draw = draw_noise(shape if each else posterior.mean.shape, self.generator).to(model.device)
        z = (model.vae.config.scaling_factor * posterior.sample(draw)).expand(shape)
        return z, draw_noise(shape, self.generator).to(model.device)

    def paint(self, x_start: Tensor, timesteps: list[int], after_step: AfterStep | None = None) -> list[Image.Image]:
        """Read the prompts, run the loop, decode the latents: one by one, as a picture takes much more memory."""
        model, negative_context = self.model, None
        if self.guidance_scale == 1:
            context = encode_prompt(model, self.prompts)
        else:
            negative_context, context = encode_prompt(model, self.negative_prompts + self.prompts).chunk(2)
        x = x_start
        for state in denoise(
            model,
            x_start,
            context,
            timesteps,
            negative_context=negative_context,
            guidance_scale=self.guidance_scale,
            scheduler=self.scheduler,
            generator=self.generator,
            after_step=after_step,
            progress=self.progress,
        ):
            x = state.x_t
        z = (x / model.vae.config.scaling_factor).to(model.dtype)
        with model.at_work(model.vae):
            return to_pil(torch.cat([model.vae.decode(one) for one in z.split(1)]))

    def answer(self, pictures: list[Image.Image]) -> Pictures:
        return pictures[0] if self.single else pictures


def _check_request(
    model: LatentDiffusion,
    prompt: Prompt,
    negative_prompt: Prompt | None,
    num_inference_steps: int,
    guidance_scale: float,
    seed: int | None,
    generator: Generators,
    scheduler: str,
    timestep_spacing: str | None,
    progress: bool,
) -> _Request:
    """Check everything that the three tasks share, and fill in what was left open."""
    check_model(model)
    latent_channels = model.vae.config.latent_channels
    if model.unet.config.in_channels != latent_channels:
        raise InputError(
            f"This UNet reads {model.unet.config.in_channels} channels, not the latent's {latent_channels}: it was "
            "trained for another task, such as in-painting with its own mask channels; load a text-to-image model."
        )
    prompts = [prompt] if isinstance(prompt, str) else prompt
    check_prompts(prompts)
    b = len(prompts)
    negative_prompt = "" if negative_prompt is None else negative_prompt
    negative_prompts = [negative_prompt] * b if isinstance(negative_prompt, str) else negative_prompt
    check_prompts(negative_prompts, "negative_prompt")
    if len(negative_prompts) != b:
        raise InputError(f"{len(negative_prompts)} negative prompts do not fit {b} prompts; give one, or one each.")
    check_choice("scheduler", scheduler, SCHEDULERS)
    check_guidance(guidance_scale)
    return _Request(
        model=model,
        prompts=list(prompts),
        single=isinstance(prompt, str),
        negative_prompts=list(negative_prompts),
        timesteps=model.schedule.timesteps(num_inference_steps, timestep_spacing),
        guidance_scale=guidance_scale,
        generator=_generators(seed, generator, b),
        scheduler=scheduler,
        progress=progress,
    )


def _generators(seed: int | None, generator: Generators, b: int) -> torch.Generator | list[torch.Generator]:
    """The given generator, or one per picture: seed, seed + 1, ..."""
    if generator is not None:
        if seed is not None:
            raise InputError("seed and generator both say which noise to draw; give only one of them.")
        check_generator(generator, b)
        return generator if isinstance(generator, torch.Generator) else list(generator)
    if seed is None:
        seed = int(torch.randint(2**31, ()))
    check_seed(seed)
    return [torch.Generator().manual_seed(int(seed) + i) for i in range(b)]


def _latent_side(model: LatentDiffusion, name: str, pixels: int | None) -> int:
    """Height or width in latent cells; None is the size that the model was trained at."""
    downscale = model.vae.downscale
    if pixels is None:
        return model.unet.config.sample_size
    if not isinstance(pixels, Integral) or not 1 <= pixels <= LARGEST_SIDE or pixels % downscale:
        raise InputError(
            f"{name} is {shown(pixels)}; it must be a positive multiple of {downscale}, in pixels, at most "
            f"{LARGEST_SIDE}."
        )
    return int(pixels) // downscale

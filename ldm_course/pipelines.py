"""The three tasks, each around the one loop: text to image, image to image, in-painting. Notebooks 04, 05 and 06.

Each function reads: prompt -> embed -> noise -> denoise -> decode. With the same weights and the same noise they make
diffusers' images (tests/test_pipelines.py).
"""

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Concatenate, ParamSpec, Protocol, overload

import torch
from PIL import Image
from torch import Tensor

from ldm_course import samplers
from ldm_course.errors import InputError, check_choice, memory_error_in_a_sentence, warn
from ldm_course.images import latent_mask, resized, to_grey, to_pil, to_rgb, to_tensor, worked_size
from ldm_course.model import LatentDiffusion, check_model
from ldm_course.sampling import AfterStep, Generators, check_generator, check_guidance, denoise, draw_noise
from ldm_course.schedule import SPACINGS
from ldm_course.text import check_prompts

SAMPLERS: dict[str, samplers.Step] = {
    "ddpm": samplers.ddpm,
    "ddim": samplers.ddim,
    "euler": samplers.euler,
    "dpm++": samplers.dpmpp_2m,
}
LARGEST_SIDE = 8192  # pixels; far beyond what a model was trained at

Images = Image.Image | list[Image.Image]
P = ParamSpec("P")


class Pipeline(Protocol[P]):
    """A task: one prompt to one image, a list of prompts to a list of images."""

    @overload
    def __call__(self, model: LatentDiffusion, prompt: str, *args: P.args, **kwargs: P.kwargs) -> Image.Image: ...
    @overload
    def __call__(
        self, model: LatentDiffusion, prompt: list[str], *args: P.args, **kwargs: P.kwargs
    ) -> list[Image.Image]: ...


def pipeline(task: Callable[Concatenate[LatentDiffusion, list[str], P], list[Image.Image]]) -> Pipeline[P]:
    """Let a task that is written for a list of prompts also take one prompt, and return one image for it."""

    @functools.wraps(task)
    @memory_error_in_a_sentence()
    @torch.no_grad()
    def call(model, prompt, *args, **kwargs):
        check_model(model)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        check_prompts(prompts)
        images = task(model, prompts, *args, **kwargs)
        return images[0] if isinstance(prompt, str) else images

    signature = inspect.signature(task)  # what help() shows
    prompt = signature.parameters["prompt"].replace(annotation=str | list[str])
    parameters = [*(signature.parameters | {"prompt": prompt}).values()]
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=Images)  # type: ignore[attr-defined]
    return call


@dataclass(frozen=True)
class Options:
    """What the three tasks share, with the meanings of `txt2img`. Raises InputError for a value out of range."""

    negative_prompt: str | list[str] | None
    num_inference_steps: int
    guidance_scale: float
    seed: int | None
    generator: Generators
    scheduler: str
    timestep_spacing: str | None
    progress: bool

    def __post_init__(self) -> None:
        check_choice("scheduler", self.scheduler, tuple(SAMPLERS))
        if self.timestep_spacing is not None:
            check_choice("timestep_spacing", self.timestep_spacing, SPACINGS)
        check_guidance(self.guidance_scale)
        if self.seed is not None and self.generator is not None:
            raise InputError("seed and generator both say which noise to draw; give only one of them.")
        check_seed(0 if self.seed is None else self.seed)

    def timesteps(self, model: LatentDiffusion, strength: float = 1.0) -> list[int]:
        """The timesteps to visit: the last share `strength` of all. Warns if they start near the clean end."""
        if not isinstance(strength, Real) or not 0 <= strength <= 1:
            raise InputError(f"strength is {strength!r}; it must be a number from 0 (change nothing) to 1.")
        every = model.schedule.timesteps(self.num_inference_steps, self.timestep_spacing)
        timesteps = strength_timesteps(every, strength)
        if not timesteps and strength > 0:
            raise InputError(
                f"strength {strength} of {len(every)} steps is less than one step, so the prompt would do nothing; "
                f"use {math.ceil(1 / strength)} steps or more, or a strength of {math.ceil(100 / len(every)) / 100}."
            )
        if strength == 1 and model.schedule.alpha_bar(timesteps[0]) > 0.2:
            warn(
                f"With so few steps the first is t = {timesteps[0]}, where the model takes pure noise for a partly "
                'clean image; use timestep_spacing="trailing", or more steps.'
            )
        return timesteps

    def generators(self, b: int) -> torch.Generator | list[torch.Generator]:
        """The given generator, or one per image: seed, seed + 1, ..."""
        if self.generator is not None:
            check_generator(self.generator, b)
            return self.generator if isinstance(self.generator, torch.Generator) else list(self.generator)
        seed = int(torch.randint(2**31, (), device="cpu")) if self.seed is None else int(self.seed)
        return [torch.Generator("cpu").manual_seed(seed + i) for i in range(b)]

    def negative_prompts(self, b: int) -> list[str]:
        """One negative prompt for each of b prompts."""
        negative = "" if self.negative_prompt is None else self.negative_prompt
        negatives = [negative] * b if isinstance(negative, str) else negative
        check_prompts(negatives, "negative_prompt")
        if len(negatives) != b:
            raise InputError(f"{len(negatives)} negative prompts do not fit {b} prompts; give one, or one each.")
        return list(negatives)


def strength_timesteps(timesteps: list[int], strength: float) -> list[int]:
    """The timesteps that are left if an image is noised only part of the way: the last `strength` of them."""
    return timesteps[len(timesteps) - int(len(timesteps) * strength) :]


def keep_known_region(x: Tensor, z: Tensor, noise: Tensor, mask: Tensor, alpha_bar: float) -> Tensor:
    """x where the mask is 1, and where it is 0 the known latent z at x's noise level (Lugmayr et al. 2022, eq. 8).

    x, z and noise are (b, c, h, w), mask is (b or 1, 1, h, w). At alpha_bar = 1, the end, z comes back as it is.
    """
    return mask * x + (1 - mask) * (math.sqrt(alpha_bar) * z + math.sqrt(1 - alpha_bar) * noise)


def known_region_hook(model: LatentDiffusion, z: Tensor, noise: Tensor, mask: Tensor) -> AfterStep:
    """The `after_step` that keeps the known region at x's own noise level, and without noise at the end."""

    def after_step(x: Tensor, t_prev: int) -> Tensor:
        alpha_bar = 1.0 if t_prev == -1 else model.schedule.alpha_bar(t_prev)
        return keep_known_region(x, z, noise, mask, alpha_bar)

    return after_step


@pipeline
def txt2img(
    model: LatentDiffusion,
    prompt: list[str],
    *,
    negative_prompt: str | list[str] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    seed: int | None = None,
    generator: Generators = None,
    scheduler: str = "ddim",
    timestep_spacing: str | None = None,
    height: int | None = None,
    width: int | None = None,
    latents: Tensor | None = None,
    progress: bool = False,
) -> list[Image.Image]:
    """Make an image of what the prompt says, from pure noise. One prompt returns one image, a list returns a list.

    Args:
        model: from `ldm_course.load()`.
        prompt: a text, or a list of b texts.
        negative_prompt: what to steer away from, one text for all or one each; None is the empty text.
        num_inference_steps: 1 ... 999 (1000 with a spacing other than "leading"); more is slower and finer.
        guidance_scale: how much the text is exaggerated; 1 follows it plainly and takes half the time. Below 1 the
            text has less weight, at 0 none, as in the paper (diffusers takes any scale below 1 for 1).
        seed: image i is drawn from seed + i, so a batch equals its single images. None takes a random one.
        generator: a torch.Generator in place of the seed, drawn from in diffusers' order; or a list, one per image.
        scheduler: "ddim", "ddpm", "euler" or "dpm++".
        timestep_spacing: "leading", "trailing" or "linspace"; None is the model's own.
        height, width: in pixels, multiples of 8; None is the size that the model was trained at.
        latents: the noise to start from, (b, 4, height/8, width/8), in place of a drawn one.
        progress: show a progress bar.

    Raises:
        InputError: if an argument is wrong; nothing has been computed then.
        MemoryError: if the memory ran out; what was computed is released.
    """
    options = Options(
        negative_prompt, num_inference_steps, guidance_scale, seed, generator, scheduler, timestep_spacing, progress
    )
    timesteps, generator = options.timesteps(model), options.generators(len(prompt))
    shape = (len(prompt), model.vae.config.latent_channels, *_latent_size(model, height, width))
    x_T = draw_noise(shape, generator) if latents is None else _checked_latents(latents, shape)

    contexts = embed(model, prompt, options)
    z = sample(model, x_T, contexts, timesteps, generator, options)
    return to_pil(model.decode(z))


@pipeline
def img2img(
    model: LatentDiffusion,
    prompt: list[str],
    image: Images,
    *,
    strength: float = 0.6,
    negative_prompt: str | list[str] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    seed: int | None = None,
    generator: Generators = None,
    scheduler: str = "ddim",
    timestep_spacing: str | None = None,
    progress: bool = False,
) -> list[Image.Image]:
    """Change an image after the prompt: add noise to its latent, and denoise it again (Meng et al. 2022).

    The image is worked on, and returned, at its own size rounded down to a multiple of 8; one larger than the model's
    training images is shrunk to their area first (`images.worked_size`).

    Args:
        image: a PIL image of any mode; or a list, one per prompt.
        strength: in [0, 1], the share of the steps that is done, at least one. At exactly 0 the image only goes
            through the VAE and back (diffusers refuses that); even at 1 a trace of it stays, as alpha_bar is not 0 at
            the last timestep.
        The others are as in `txt2img`.

    Raises:
        InputError: if an argument is wrong; nothing has been computed then.
        MemoryError: if the memory ran out; what was computed is released.
    """
    options = Options(
        negative_prompt, num_inference_steps, guidance_scale, seed, generator, scheduler, timestep_spacing, progress
    )
    timesteps, generator = options.timesteps(model, strength), options.generators(len(prompt))
    images = _as_list("image", image, len(prompt), to_rgb)
    images = resized(images, _common_size(model, images))

    contexts = embed(model, prompt, options)
    z, noise = encode_and_draw(model, images, len(prompt), generator)
    x_start = model.schedule.add_noise(z, noise, timesteps[0]) if timesteps else z
    x = sample(model, x_start, contexts, timesteps, generator, options)
    return to_pil(model.decode(x))


@pipeline
def inpaint(
    model: LatentDiffusion,
    prompt: list[str],
    image: Images,
    mask_image: Images,
    *,
    strength: float = 1.0,
    composite: bool = False,
    negative_prompt: str | list[str] | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    seed: int | None = None,
    generator: Generators = None,
    scheduler: str = "ddim",
    timestep_spacing: str | None = None,
    progress: bool = False,
) -> list[Image.Image]:
    """Repaint the white part of a mask after the prompt, and keep the rest of the image, the known region.

    After every step the latent outside the mask is replaced by the known image's own, at the noise level just
    reached (Lugmayr et al. 2022, eq. 8, without their resampling). The size is as in `img2img`.

    Args:
        image: a PIL image of any mode; or a list, one per prompt.
        mask_image: white where to repaint, black where to keep, of the image's size; one for all, or one per prompt.
            Transparent pixels count as black; an image in place of a mask is refused (`images.to_grey`). The latent's
            mask is hard, cut at one half, and only as fine as latent cells of 8 x 8 pixels.
        strength: as in `img2img`, but at exactly 1 the start is pure noise.
        composite: False returns the whole image as decoded, so that the known region has gone through the VAE, too
            (as in diffusers). True puts its original pixels back, softly if the mask is soft.
        The others are as in `txt2img`.

    Raises:
        InputError: if an argument is wrong; nothing has been computed then.
        MemoryError: if the memory ran out; what was computed is released.
    """
    options = Options(
        negative_prompt, num_inference_steps, guidance_scale, seed, generator, scheduler, timestep_spacing, progress
    )
    timesteps, generator = options.timesteps(model, strength), options.generators(len(prompt))
    images = _as_list("image", image, len(prompt), to_rgb)
    masks = _as_list("mask_image", mask_image, len(prompt), to_grey)
    size = _common_size(model, images + masks)
    images, masks = resized(images, size), resized(masks, size)
    mask = torch.cat([latent_mask(m, model.vae.downscale) for m in masks]).to(model.device)  # (b or 1, 1, h, w)

    contexts = embed(model, prompt, options)
    z, noise = encode_and_draw(model, images, len(prompt), generator)
    if strength == 1:
        x_start = noise
    else:
        x_start = model.schedule.add_noise(z, noise, timesteps[0]) if timesteps else z

    after_step = known_region_hook(model, z, noise, mask)
    x = sample(model, x_start, contexts, timesteps, generator, options, after_step)
    repainted = to_pil(model.decode(x))
    if composite:
        b = len(repainted)
        return [Image.composite(*each) for each in zip(repainted, images * b, masks * b)]
    return repainted


def embed(model: LatentDiffusion, prompts: list[str], options: Options) -> tuple[Tensor, Tensor | None]:
    """The contexts of the prompts and of the negative prompts, (b, 77, d) each; None where guidance needs none."""
    negatives = options.negative_prompts(len(prompts))
    if options.guidance_scale == 1:
        return model.embed(prompts), None
    negative_context, context = model.embed(negatives + prompts).chunk(2)
    return context, negative_context


def sample(
    model: LatentDiffusion,
    x_start: Tensor,
    contexts: tuple[Tensor, Tensor | None],
    timesteps: list[int],
    generator: Generators,
    options: Options,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Run the loop to its end: the finished latents, (b, 4, h/8, w/8)."""
    context, negative_context = contexts
    x = x_start
    for state in denoise(
        model,
        x_start,
        context,
        timesteps,
        negative_context=negative_context,
        guidance_scale=options.guidance_scale,
        step=SAMPLERS[options.scheduler],
        generator=generator,
        after_step=after_step,
        progress=options.progress,
    ):
        x = state.x_t
    return x


def encode_and_draw(
    model: LatentDiffusion, images: list[Image.Image], b: int, generator: torch.Generator | list[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Sample the images' latents, then draw noise for them, in diffusers' order: two of (b, 4, h/8, w/8), float32."""
    x = to_tensor(images)
    shape = (b, model.vae.config.latent_channels, *(side // model.vae.downscale for side in x.shape[2:]))
    posterior_noise = draw_noise(shape if isinstance(generator, list) else (len(x), *shape[1:]), generator)
    z = model.encode(x, posterior_noise).expand(shape)
    return z, draw_noise(shape, generator).to(model.device)


def check_seed(seed: int) -> None:
    """Raise InputError unless torch.Generator takes it: a whole number of 63 bits."""
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1.")


def _as_list(name: str, images: Images, b: int, convert: Callable[[Image.Image], Image.Image]) -> list[Image.Image]:
    """Images or masks, converted: one for all prompts, or one per prompt."""
    if not isinstance(images, (list, tuple)):
        return [convert(images)]
    if len(images) != b:
        raise InputError(f"{name} is a list of {len(images)}, which does not fit {b} prompts.")
    return [convert(image) for image in images]


def _common_size(model: LatentDiffusion, images: list[Image.Image]) -> tuple[int, int]:
    """The size at which images and masks, all of one size, are worked on."""
    width, height = images[0].size
    for other in images:
        if other.size != (width, height):
            raise InputError(
                f"Images and masks of one call must have one size, but there are {width} x {height} and "
                f"{other.width} x {other.height} pixels."
            )
    return worked_size(width, height, model.native_size**2, model.vae.downscale)


def _latent_size(model: LatentDiffusion, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in latent cells; None is the size that the model was trained at."""
    cells, downscale = [], model.vae.downscale
    for name, pixels in (("height", height), ("width", width)):
        if pixels is None:
            cells.append(model.native_latent_size)
        elif isinstance(pixels, Integral) and 1 <= pixels <= LARGEST_SIDE and pixels % downscale == 0:
            cells.append(int(pixels) // downscale)
        else:
            raise InputError(
                f"{name} is {pixels!r}; it must be a positive multiple of {downscale}, in pixels, at most "
                f"{LARGEST_SIDE}."
            )
    return cells[0], cells[1]


def _checked_latents(latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(latents, Tensor) or tuple(latents.shape) != shape:
        has = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise InputError(f"latents are {has}; these prompts and this size need a tensor of shape {shape}.")
    return latents

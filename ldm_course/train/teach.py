"""Teach a model something new from a few images: LoRA, the diffusion loss, and prior preservation.

DreamBooth (Ruiz et al. 2023, https://arxiv.org/abs/2208.12242, section 3.2) with LoRA (Hu et al. 2021) in place of
all weights. Latents and text vectors are computed once: a step is nothing but the UNet.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ldm_course.errors import InputError
from ldm_course.image_files import SUFFIXES
from ldm_course.images import load_image, to_rgb, to_tensor
from ldm_course.io.load import load
from ldm_course.lora import ATTENTION, add_lora, lora_parameters
from ldm_course.loss import diffusion_loss, drop_captions
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import dpmpp_2m
from ldm_course.sampling import denoise, draw_noise
from ldm_course.scenes import random_caption, training_scene
from ldm_course.text import check_prompts

DROPOUT = 0.1  # probability that a caption is replaced by the empty one, for classifier-free guidance
MIN_SNR_GAMMA = 5.0
TARGETS = (*ATTENTION, "ff.net.0.proj", "ff.net.2")
PRIOR_STEPS, PRIOR_GUIDANCE = 10, 3.0  # DPM-Solver++, of the images that the model generates for itself
AT_ONCE = 16  # images generated together
WARM_UP, DECAY = 10, 0.3  # steps until the full learning rate, and the share at the end in which it falls to 0


@dataclass(frozen=True)
class Examples:
    """Images as the posteriors of their scaled latents, and their captions' vectors, all on the model's device.

    means, stds: (n, c, h, w).
    contexts: k captions for each image, (n, k, 77, d).
    """

    means: Tensor
    stds: Tensor
    contexts: Tensor

    def batch(self, b: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw b images, a sample of the latent of each, (b, c, h, w), and one of its contexts, (b, 77, d)."""
        n, k = self.contexts.shape[:2]
        which = torch.randint(n, (b,), generator=generator, device="cpu")
        caption = torch.randint(k, (b,), generator=generator, device="cpu")
        noise = torch.randn((b, *self.means.shape[1:]), generator=generator, dtype=torch.float32, device="cpu")
        x0 = self.means[which] + self.stds[which] * noise.to(self.stds)
        return x0, self.contexts[which, caption]


@dataclass(frozen=True)
class Lesson:
    """After a step: how many are done, the batch's loss, and the model with the LoRA as it is now."""

    step: int
    loss: float
    model: LatentDiffusion


def read_folder(folder: Path, prompts: Sequence[str]) -> tuple[list[Image.Image], list[list[str]]]:
    """The images of a folder, in the order of their names, and the captions of each.

    These are the lines of a text file beside it, dog.txt for dog.png, or else the prompts.

    Raises InputError if there is no such folder or no image in it, an image cannot be read, or one has no caption.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}.")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise InputError(f"There are no images in {folder}; put a few there, of the kinds {', '.join(SUFFIXES)}.")
    images, captions = [], []
    for file in files:
        images.append(to_rgb(load_image(file)))
        text = file.with_suffix(".txt")
        try:
            lines = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
        except UnicodeDecodeError:
            raise InputError(f"The captions in {text} are not text in UTF-8; save the file anew.") from None
        own = [line.strip() for line in lines if line.strip()] or [prompt for prompt in prompts if prompt.strip()]
        if not own:
            raise InputError(
                f"Say with --prompt what the images show, or write it into {text.name} beside {file.name}."
            )
        captions.append(own)
    return images, captions


@torch.no_grad()
def encode_examples(
    model: LatentDiffusion, images: Sequence[Image.Image], captions: Sequence[Sequence[str]], mirror: bool = True
) -> Examples:
    """Images to examples, each in the middle of a square, at the size that the model was trained at.

    Args:
        images: one or more, of any size.
        captions: for each image those that may stand for it, one or more.
        mirror: also learn from the images' mirror images.

    Raises InputError if there are no images, or one of them has no caption.
    """
    if not images or len(images) != len(captions) or not all(captions):
        raise InputError(f"There are {len(images)} images and captions for {len(captions)}; give each one or more.")
    most = max(map(len, captions))
    side = (model.native_size, model.native_size)
    square = [ImageOps.fit(to_rgb(image), side, Image.Resampling.LANCZOS) for image in images]
    square += [ImageOps.mirror(image) for image in square] if mirror else []
    posteriors = [model.vae.encode(to_tensor(image).to(model.device, model.dtype)) for image in square]
    means, stds = (torch.cat([getattr(p, name) for p in posteriors]).float() for name in ("mean", "std"))
    contexts = torch.stack([model.embed([*islice(cycle(each), most)]) for each in captions])  # (n, k, 77, d)
    scaling = model.vae.config.scaling_factor
    return Examples(scaling * means, scaling * stds, torch.cat([contexts] * (len(square) // len(images))))


@torch.no_grad()
def generate_examples(model: LatentDiffusion, prompts: Sequence[str], seed: int = 0) -> Iterator[Examples]:
    """What the model generates for the prompts now, to hold it to that: one example for each prompt.

    They come in groups of AT_ONCE, for a progress bar; `joined` puts them together. The latents are used as they
    come from the loop: nothing is decoded.
    """
    timesteps, empty = model.schedule.timesteps(PRIOR_STEPS), model.embed([""])
    cells = model.native_latent_size
    for start in range(0, len(prompts), AT_ONCE):
        context = model.embed(list(prompts[start : start + AT_ONCE]))
        b = len(context)
        x_T = draw_noise(
            (b, model.vae.config.latent_channels, cells, cells), torch.Generator().manual_seed(seed + start)
        )
        *_, end = denoise(
            model,
            x_T,
            context,
            timesteps,
            negative_context=empty.expand(b, -1, -1),
            guidance_scale=PRIOR_GUIDANCE,
            step=dpmpp_2m,
        )
        yield Examples(end.x_t, torch.zeros_like(end.x_t), context[:, None])


def joined(parts: Sequence[Examples]) -> Examples:
    """Several groups of examples, with as many captions for each image, as one."""
    fields = zip(*((part.means, part.stds, part.contexts) for part in parts))
    return Examples(*(torch.cat(field) for field in fields))


def small_world_prompts(count: int, seed: int = 0) -> list[str]:
    """Captions like those that the shipped model was trained on, to hold it to what it knows."""
    rng = random.Random(f"prior-{seed}")
    return [random_caption(training_scene(seed, i), rng) for i in range(count)]


def teach(
    model: LatentDiffusion,
    examples: Examples,
    prior: Examples | None = None,
    *,
    steps: int = 300,
    rank: int = 8,
    lora_alpha: float | None = None,
    target_modules: Sequence[str] = TARGETS,
    learning_rate: float = 1.5e-3,
    batch_size: int = 8,
    seed: int = 0,
) -> Iterator[Lesson]:
    """Train a new LoRA on the examples, and yield after each step. The model itself stays as it is.

    Args:
        examples: what to learn.
        prior: what to keep, from `generate_examples`; None lets the model forget.
        rank, lora_alpha, target_modules: as in `add_lora`.
        learning_rate: after a warm-up of 10 steps; it falls linearly to zero over the last 30% of the steps.
        batch_size: examples in a step, and as many of the prior beside them.

    Raises InputError if a number is out of range.
    """
    check_numbers(steps, batch_size, learning_rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = add_lora(model.unet, rank, lora_alpha, target_modules)
    return _lessons(replace(model, unet=unet), examples, prior, steps, learning_rate, batch_size, seed)


def teach_folder(
    images: Sequence[Image.Image],
    captions: Sequence[Sequence[str]],
    *,
    class_prompt: Sequence[str] = (),
    prior_images: int = 64,
    steps: int = 300,
    rank: int = 8,
    learning_rate: float = 1.5e-3,
    batch_size: int = 8,
    mirror: bool = True,
    seed: int = 0,
    model: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    progress: bool = False,
) -> LatentDiffusion:
    """What `ldm-course teach` does with the images of a folder: the model with the LoRA beside its weights.

    Args:
        images, captions: from `read_folder`.
        class_prompt: of images that the model generates first, `prior_images` in all, to keep; none is scenes of the
            small world for the shipped model, and nothing for others.
        model, revision, device: as `source` and so on in `ldm_course.load`.
        progress: show progress bars.
    """
    check_numbers(steps, batch_size, learning_rate)
    check_prompts([*chain.from_iterable(captions), *class_prompt])
    loaded = load(model, revision=revision, device=device)
    prompts = list(islice(cycle(class_prompt), prior_images)) if class_prompt else []
    if not class_prompt and model is None:
        prompts = small_world_prompts(prior_images, seed)
    examples = encode_examples(loaded, images, captions, mirror)
    bar = partial(tqdm, disable=None if progress else True)
    groups = math.ceil(len(prompts) / AT_ONCE)
    kept = list(bar(generate_examples(loaded, prompts, seed), total=groups, desc="what to keep"))
    lessons = teach(
        loaded,
        examples,
        joined(kept) if kept else None,
        steps=steps,
        rank=rank,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    *_, last = bar(lessons, total=steps, desc="teaching")
    return last.model


def check_numbers(steps: int, batch_size: int, learning_rate: float) -> None:
    """Raise InputError unless each is above 0 and finite."""
    for name, value in (("steps", steps), ("batch_size", batch_size), ("learning_rate", learning_rate)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} must be more than 0, and finite, not {value!r}.")


def _lessons(
    model: LatentDiffusion,
    examples: Examples,
    prior: Examples | None,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Iterator[Lesson]:
    parameters = lora_parameters(model.unet)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    generator, empty = torch.Generator("cpu").manual_seed(seed), model.embed([""])
    sources = [examples] if prior is None else [examples, prior]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate_at(step, steps)
        x0, context = (torch.cat(part) for part in zip(*(source.batch(batch_size, generator) for source in sources)))
        context = drop_captions(context, empty, DROPOUT, generator)
        loss = teaching_loss(model, x0, context, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        yield Lesson(step + 1, loss.item(), model)


def rate_at(step: int, steps: int) -> float:
    """Factor on the learning rate: up over the first WARM_UP steps, flat, down to 0 over the last share DECAY."""
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, (1 - step / steps) / DECAY)


def teaching_loss(model: LatentDiffusion, x0: Tensor, context: Tensor, generator: torch.Generator) -> Tensor:
    """`diffusion_loss`, and on a CPU the attention whose backward pass is quickest there."""
    with sdpa_kernel(SDPBackend.MATH) if model.device.type == "cpu" else nullcontext():
        return diffusion_loss(
            model.unet, model.schedule, x0, context, min_snr_gamma=MIN_SNR_GAMMA, generator=generator
        )

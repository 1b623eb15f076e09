"""Tiny models with random weights, in diffusers' folder format, and what the parity tests share."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import ldm_course.unet
import ldm_course.vae
from ldm_course.errors import InputError
from ldm_course.model import LatentDiffusion
from ldm_course.schedule import NoiseSchedule

T = TypeVar("T")

SD15_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "clip_sample": False,
}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the reference's largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def pixel_difference(ours: Image.Image, theirs: Image.Image) -> int:
    """The largest difference in any pixel and channel, in steps of 1/255."""
    assert ours.size == theirs.size and ours.mode == theirs.mode == "RGB"
    return int(np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max())


@contextmanager
def one_sentence(*words: str) -> Iterator[None]:
    """Expect an InputError whose message is one sentence, and says these words."""
    with pytest.raises(InputError) as caught:
        yield
    assert_one_sentence(str(caught.value))
    for word in words:
        assert word in str(caught.value), str(caught.value)


def assert_one_sentence(message: str) -> None:
    assert message[0].isupper() or message.split()[0].isidentifier() or message[0] in "'1234567890", message
    assert message.endswith(".") and message.isprintable() and not re.search(r"[.!?] [A-Z]", message), message


def or_one_sentence(call: Callable[[], T]) -> T | None:
    """What the call returns; None if it raises an InputError of one sentence. Any other exception comes through."""
    try:
        return call()
    except InputError as error:
        assert_one_sentence(str(error))
        return None


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian noise; the same seed gives the same noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def our_unet(theirs: UNet2DConditionModel) -> ldm_course.unet.UNet:
    """Our module with the same weights, loaded without any renaming."""
    ours = ldm_course.unet.UNet(_config(theirs, ldm_course.unet.UNetConfig))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval().requires_grad_(False)


def our_vae(theirs: AutoencoderKL) -> ldm_course.vae.AutoencoderKL:
    """As `our_unet`."""
    ours = ldm_course.vae.AutoencoderKL(_config(theirs, ldm_course.vae.VAEConfig))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval().requires_grad_(False)


def our_model(pipe: StableDiffusionPipeline) -> LatentDiffusion:
    """Our model with the weights and the schedule of diffusers' pipeline."""
    return LatentDiffusion(
        vae=our_vae(pipe.vae),
        unet=our_unet(pipe.unet),
        text_encoder=pipe.text_encoder,
        tokenizer=pipe.tokenizer,
        schedule=NoiseSchedule(**{f.name: pipe.scheduler.config[f.name] for f in fields(NoiseSchedule)}),
    )


def _config(module, cls):
    values = {f.name: module.config[f.name] for f in fields(cls)}
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Weights that leave no layer without effect: group norms get scales and shifts, biases are not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                weight.copy_(noise / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.2 * noise + ("norm" in name and name.endswith("weight")))
    return module.eval().requires_grad_(False)


def tiny_unet(seed: int = 0, **overrides) -> UNet2DConditionModel:
    config = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 24,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return randomise(UNet2DConditionModel(**config | overrides), seed)


def tiny_vae(seed: int = 1, **overrides) -> AutoencoderKL:
    channels = overrides.get("block_out_channels", (8, 8, 16, 16))
    config = {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 64,
        "scaling_factor": 0.5,
    }
    return randomise(AutoencoderKL(**config | overrides), seed)


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's file format with a vocabulary of single letters, so a text has about as many tokens as letters."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!'-"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def tiny_text_encoder(tokenizer: CLIPTokenizer, seed: int = 2) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return randomise(CLIPTextModel(config), seed)


def tiny_pipeline(folder: Path, **schedule) -> StableDiffusionPipeline:
    """A whole Stable Diffusion of 100,000 weights; images are 64 x 64."""
    tokenizer = tiny_tokenizer(folder / "tokenizer_files")
    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=DDIMScheduler(**SD15_SCHEDULE | schedule),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def needs_a_compiler() -> pytest.MarkDecorator:
    """For tests of compile=True: skipped where it cannot work."""
    lacking = not any(map(shutil.which, ("g++", "clang++", "cl"))) or " " in torch.__file__
    return pytest.mark.skipif(lacking, reason="torch cannot compile here: no C++ compiler, or a space in its path")

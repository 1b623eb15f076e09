"""diffusers' pipelines from the files of our model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import noise, one_sentence, pixel_difference

import ldm_course as ldm
from ldm_course.evaluate.reference import DIFFUSERS, diffusers_pipeline
from ldm_course.model import LatentDiffusion


@pytest.fixture
def folder(model: LatentDiffusion, tmp_path: Path) -> Path:
    ldm.save(model, tmp_path / "model", dtype=torch.float32)
    return tmp_path / "model"


def test_diffusers_generates_the_same_image(folder, model):
    pipe = diffusers_pipeline(model, folder)
    latents = noise(1, 4, 8, 8)
    theirs = pipe("a dog", latents=latents, num_inference_steps=4).images[0]
    ours = ldm.txt2img(replace(model, known_words=None), "a dog", latents=latents, num_inference_steps=4)
    assert pixel_difference(ours, theirs) <= 1


def test_the_pipeline_is_that_of_the_task_and_prints_nothing(folder, model, capfd):
    for task, name in DIFFUSERS.items():
        assert type(diffusers_pipeline(model, folder, task)).__name__ == name
    out, err = capfd.readouterr()
    assert out == err == ""
    with one_sentence("task", "img2img"):
        diffusers_pipeline(model, folder, "upscale")


def test_weights_in_half_precision_only_are_found(folder, model):
    for file in [*folder.glob("*/model.safetensors"), *folder.glob("*/diffusion_pytorch_model.safetensors")]:
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert diffusers_pipeline(model, folder).unet.dtype == torch.float32

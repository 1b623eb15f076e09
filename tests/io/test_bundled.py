"""The model that ships with the package: the same in diffusers, and able to do its job."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import pixel_difference

import ldm_course as ldm
from ldm_course.evaluate import metrics
from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.evaluate.evaluate import round_trip
from ldm_course.images import to_tensor
from ldm_course.model import LatentDiffusion
from ldm_course.scenes import training_scene
from ldm_course.train.stages import CHECKSUMS, checksums


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return ldm.load(device="cpu")


def test_the_weights_are_those_whose_checksums_are_recorded():
    recorded = (ldm.bundled_path() / CHECKSUMS).read_text()
    assert recorded == checksums(ldm.bundled_path())
    assert recorded.count("\n") == 5, "CLIP, its text encoder, VAE, UNet, classifier"


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_diffusers_samples_the_same_image(model, guidance_scale):
    pipe = StableDiffusionPipeline.from_pretrained(ldm.bundled_path(), dtype=torch.float32)
    options = {"num_inference_steps": 10, "guidance_scale": guidance_scale}
    theirs = pipe("a dog with glasses", generator=torch.Generator().manual_seed(3), **options).images[0]
    assert pixel_difference(ldm.txt2img(model, "a dog with glasses", seed=3, **options), theirs) <= 1


def test_the_autoencoder_returns_what_it_was_given_and_has_its_measured_scale(model):
    x = metrics.render([training_scene(0, i) for i in range(64)])
    assert metrics.psnr(x[:1], round_trip(model, x[:1])).item() > 20
    with torch.no_grad():
        std = model.vae.encode(x).mean.std().item()
    assert model.vae.config.scaling_factor == pytest.approx(1 / std, rel=0.05)


def test_images_show_their_prompts_far_above_chance(model):
    """How many show the animal, colour and place asked for; chance would reach 1 in 180."""
    scenes = metrics.test_scenes(16, 5, False)
    images = ldm.txt2img(model, [scene.caption() for scene in scenes], seed=0, num_inference_steps=20)
    found = classify(load_classifier(ldm.bundled_path()), to_tensor(images))
    wishes = [scene.attributes() for scene in scenes]
    right = sum(all(a[k] == w[k] for k in ("animal", "colour", "place")) for a, w in zip(found, wishes))
    assert right >= 8


def test_an_unknown_word_is_named(model):
    with pytest.warns(UserWarning, match="'zebra'"):
        ldm.encode_prompt(model, ["a zebra"])

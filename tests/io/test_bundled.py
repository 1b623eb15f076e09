"""The model that ships with the package: small, complete, the same in diffusers, and able to do its job."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import pixel_difference
from transformers import CLIPTextModel

import ldm_course as ldm
from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.evaluate.evaluate import round_trip
from ldm_course.evaluate.metrics import all_right, psnr, render, test_scenes
from ldm_course.images import to_tensor
from ldm_course.model import LatentDiffusion
from ldm_course.scenes import training_scene
from ldm_course.train.stages import CHECKSUMS, checksums

test_scenes.__test__ = False  # no test, whatever its name


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return ldm.load(device="cpu")


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(ldm.bundled_path(), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_everything_is_small_and_nothing_is_a_pickle():
    files = [path for path in ldm.bundled_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md", ".jpg"}


def test_the_weights_are_those_whose_checksums_are_recorded():
    recorded = (ldm.bundled_path() / CHECKSUMS).read_text()
    assert recorded == checksums(ldm.bundled_path())
    assert recorded.count("\n") == 5, "CLIP, its text encoder, VAE, UNet, classifier"


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_diffusers_samples_the_same_image(model, pipe, guidance_scale):
    settings = {"num_inference_steps": 10, "guidance_scale": guidance_scale}
    theirs = pipe("a dog with glasses", generator=torch.Generator().manual_seed(3), **settings).images[0]
    assert pixel_difference(ldm.txt2img(model, "a dog with glasses", seed=3, **settings), theirs) <= 1


def test_transformers_finds_every_tensor_of_the_text_encoder():
    _, info = CLIPTextModel.from_pretrained(ldm.bundled_path() / "text_encoder", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_scaling_factor_is_one_over_the_measured_spread(model):
    x = render([training_scene(0, i) for i in range(64)])
    with torch.no_grad():
        std = model.vae.encode(x).mean.std().item()
    assert model.vae.config.scaling_factor == pytest.approx(1 / std, rel=0.05)


def test_the_autoencoder_returns_what_it_was_given(model):
    x = render([training_scene(1, 0)])
    assert psnr(x, round_trip(model, x)).item() > 20


def test_the_classifier_recognises_rendered_scenes():
    scenes = test_scenes(60, 7, None)
    found = classify(load_classifier(ldm.bundled_path()), render(scenes))
    assert all_right(found, [scene.attributes() for scene in scenes]).right >= 57


def test_images_show_their_prompts_far_above_chance(model):
    """How many show the animal, colour and place asked for; chance would reach 1 in 180."""
    scenes = test_scenes(16, 5, False)
    images = ldm.txt2img(model, [scene.caption() for scene in scenes], seed=0, num_inference_steps=20)
    found = classify(load_classifier(ldm.bundled_path()), to_tensor(images))
    wishes = [scene.attributes() for scene in scenes]
    right = sum(all(a[k] == w[k] for k in ("animal", "colour", "place")) for a, w in zip(found, wishes))
    assert right >= 8


def test_an_unknown_word_is_named(model):
    with pytest.warns(UserWarning, match="'zebra'"):
        ldm.encode_prompt(model, ["a zebra"])

"""The model that ships with the package: small, complete, the same in diffusers, and able to do its job."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ldm_course as ldm
from ldm_course.scenes import training_scene
from ldm_course.training import data, evaluate, score, stages


@pytest.fixture(scope="module")
def model():
    return ldm.load()


@pytest.fixture(scope="module")
def pipe():
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(ldm.bundled_path(), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pixels(image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_everything_is_small_and_nothing_is_a_pickle():
    files = [path for path in ldm.bundled_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md", ".jpg"}


def test_the_weights_are_those_whose_checksums_are_recorded():
    recorded = (ldm.bundled_path() / stages.CHECKSUMS).read_text()
    assert recorded == stages.checksums(ldm.bundled_path())
    assert recorded.count("\n") == 5, "CLIP, its text encoder, VAE, UNet, judge"


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_diffusers_paints_the_same_picture(model, pipe, guidance_scale):
    settings = {"num_inference_steps": 10, "guidance_scale": guidance_scale}
    theirs = pipe("a dog with glasses", generator=torch.Generator().manual_seed(3), **settings).images[0]
    ours = ldm.txt2img(model, "a dog with glasses", seed=3, **settings)
    assert np.abs(pixels(ours) - pixels(theirs)).max() <= 1


def test_transformers_finds_every_tensor_of_the_text_encoder():
    from transformers import CLIPTextModel

    _, info = CLIPTextModel.from_pretrained(ldm.bundled_path() / "text_encoder", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_scaling_factor_is_one_over_the_measured_spread(model):
    x = torch.cat([data.to_tensor(np.asarray(training_scene(0, i).render())[None]) for i in range(64)])
    with torch.no_grad():
        std = model.vae.encode(x).mean.std().item()
    assert model.vae.config.scaling_factor == pytest.approx(1 / std, rel=0.05)


def test_the_autoencoder_returns_what_it_was_given(model):
    x = evaluate.to_tensor(training_scene(1, 0).render())
    assert evaluate.psnr(x, evaluate.round_trip(model, x)).item() > 20


def test_the_judge_reads_drawings():
    judge = evaluate.load_judge(ldm.bundled_path())
    scenes = score.test_scenes(60, 7, None)
    drawn = torch.cat([evaluate.to_tensor(scene.render()) for scene in scenes])
    right = score.all_right(evaluate.read(judge, drawn), [scene.attributes() for scene in scenes])
    assert right.right >= 57


def test_pictures_show_their_prompts_far_above_chance(model):
    """The share that shows the animal, colour and place asked for; guessing would reach 1 in 180."""
    judge = evaluate.load_judge(ldm.bundled_path())
    scenes = score.test_scenes(16, 5, False)
    painted = ldm.txt2img(model, [scene.caption() for scene in scenes], seed=0, num_inference_steps=20)
    answers = evaluate.read(judge, torch.cat([evaluate.to_tensor(image) for image in painted]))
    wishes = [scene.attributes() for scene in scenes]
    right = sum(all(a[k] == w[k] for k in ("animal", "colour", "place")) for a, w in zip(answers, wishes))
    assert right >= 8


def test_an_unknown_word_is_named(model):
    with pytest.warns(UserWarning, match="'zebra'"):
        ldm.encode_prompt(model, ["a zebra"])

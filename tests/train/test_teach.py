"""Teaching: what is learnt, what is kept, and that the model which is taught stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import one_sentence
from PIL import Image, ImageOps
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course.lora import lora_layers, lora_parameters
from ldm_course.scenes import is_held_out, training_scene
from ldm_course.train import teach as module
from ldm_course.train.teach import (
    Examples,
    encode_examples,
    generate_examples,
    joined,
    rate_at,
    read_folder,
    small_world_prompts,
    teach,
    teach_folder,
)

IMAGES = [training_scene(0, i).render() for i in range(2)]


@pytest.fixture(scope="module")
def examples(model) -> Examples:
    return encode_examples(model, IMAGES, [["a dog"], ["a cat", "the cat"]])


def last(lessons):
    *_, lesson = lessons
    return lesson


# ---- examples --------------------------------------------------------------------------------------------------


def test_examples_are_the_images_and_their_mirror_images_with_their_captions(model, examples):
    assert examples.means.shape == examples.stds.shape == (4, 4, 8, 8) and examples.contexts.shape == (4, 2, 77, 24)
    small = [image.resize((64, 64), Image.Resampling.LANCZOS) for image in IMAGES]
    z = model.encode(ldm.images.to_tensor([*small, *map(ImageOps.mirror, small)]))
    assert_close(examples.means, z, rtol=0, atol=0.05)
    dog, cat, the_cat = model.embed(["a dog"]), model.embed(["a cat"]), model.embed(["the cat"])
    expected = torch.cat([dog, dog, cat, the_cat, dog, dog, cat, the_cat]).reshape(4, 2, 77, 24)
    assert_close(examples.contexts, expected)
    assert len(encode_examples(model, IMAGES, [["a dog"], ["a cat"]], mirror=False).means) == 2


def test_images_of_any_form_are_cropped_to_a_square(model):
    wide = Image.new("RGBA", (300, 70), "red")
    assert encode_examples(model, [wide], [["red"]]).means.shape == (2, 4, 8, 8)


def test_a_batch_pairs_images_with_their_own_captions():
    n, k = 5, 3
    own = torch.arange(n).float()
    means = own[:, None, None, None].expand(n, 4, 2, 2)
    contexts = (own[:, None] + torch.arange(k) / 10)[:, :, None, None].expand(n, k, 77, 8)
    there = Examples(means, torch.full_like(means, 0.01), contexts)
    x0, context = there.batch(500, torch.Generator().manual_seed(0))
    again, _ = there.batch(500, torch.Generator().manual_seed(0))
    assert torch.equal(x0, again) and context.shape == (500, 77, 8)
    which = x0.mean(dim=(1, 2, 3)).round()
    assert set(which.tolist()) == set(range(n)) and torch.equal(context[:, 0, 0].floor(), which)
    assert len(set(context[:, 0, 0].tolist())) == n * k
    assert x0.std(dim=(1, 2, 3)).min() > 0.003, "posteriors are sampled, not only their means"


def test_what_is_kept_is_what_the_model_generates(model, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)
    prompts = ["a dog", "a cat", "a pig"]
    groups = list(generate_examples(model, prompts, seed=4))
    kept = joined(groups)
    assert [len(group.means) for group in groups] == [2, 1] and kept.contexts.shape == (3, 1, 77, 24)
    assert_close(kept.contexts[:, 0], model.embed(prompts))
    how = {"num_inference_steps": module.PRIOR_STEPS, "guidance_scale": module.PRIOR_GUIDANCE, "scheduler": "dpm++"}
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    images = ldm.txt2img(model, prompts[:2], latents=noise, **how)
    assert_close(model.decode(kept.means[:2]).clamp(-1, 1), ldm.images.to_tensor(images), rtol=0, atol=1.01 / 255)
    assert not kept.stds.any()


def test_small_world_prompts_are_of_scenes_that_the_model_saw():
    prompts = small_world_prompts(200)
    assert prompts == small_world_prompts(200) and prompts != small_world_prompts(200, seed=1)
    assert not [text for text in prompts if "elephant" in text and ("sleep" in text or "asleep" in text)]
    assert not any(is_held_out(training_scene(0, i)) for i in range(200))
    known = ldm.load(device="cpu").known_words
    assert not ldm.text.unknown_words(prompts, known)


# ---- teaching --------------------------------------------------------------------------------------------------


def test_it_learns_and_the_model_stays_as_it_was(model, examples):
    before = {name: weight.clone() for name, weight in model.unet.state_dict().items()}
    lessons = list(teach(model, examples, steps=60, rank=4, batch_size=4, learning_rate=5e-2))
    assert [lesson.step for lesson in lessons] == list(range(1, 61))

    def loss(of):
        x0, context = examples.batch(64, torch.Generator().manual_seed(0))
        return module.teaching_loss(of, x0, context, torch.Generator().manual_seed(0)).item()

    assert loss(lessons[-1].model) < 0.9 * loss(model)
    taught = lessons[-1].model
    assert taught is not model and taught.vae is model.vae and not lora_layers(model.unet)
    assert all(torch.equal(weight, before[name]) for name, weight in model.unet.state_dict().items())
    assert all(weight.grad is None for weight in model.unet.parameters())
    assert all(layer.lora_B.weight.any() for layer in lora_layers(taught.unet).values())


def test_a_seed_says_everything(model, examples):
    state = torch.get_rng_state()

    def weights(seed):
        return torch.cat(
            [w.flatten() for w in lora_parameters(last(teach(model, examples, steps=3, seed=seed)).model.unet)]
        )

    one = weights(0)
    assert torch.equal(torch.get_rng_state(), state), "torch's global state is not touched"
    torch.rand(3)
    assert torch.equal(weights(0), one) and not torch.equal(weights(1), one)


def test_the_prior_is_half_of_each_batch(model, examples, monkeypatch):
    seen = []

    def loss(model, x0, context, generator):
        seen.append(x0)
        return module.lora_parameters(model.unet)[0].sum()

    monkeypatch.setattr(module, "teaching_loss", loss)
    far = Examples(examples.means + 100, examples.stds, examples.contexts)
    last(teach(model, examples, far, steps=2, batch_size=3))
    assert [(x0.mean(dim=(1, 2, 3)) > 50).tolist() for x0 in seen] == [[False] * 3 + [True] * 3] * 2


def test_the_learning_rate_rises_stays_and_falls():
    rates = [rate_at(step, 100) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:70] == [1.0] * 61
    assert rates[70:] == sorted(rates[70:], reverse=True) and 0 < rates[-1] < 0.05


def test_wrong_numbers_get_a_sentence(model, examples):
    for name in ("steps", "batch_size", "learning_rate"):
        for value in (0, -1, float("nan"), float("inf")):
            with one_sentence(name):
                teach(model, examples, **{name: value})
    with one_sentence("rank"):
        teach(model, examples, rank=0)
    with one_sentence("2 images", "captions for 1"):
        encode_examples(model, IMAGES, [["a dog"]])
    with one_sentence("0 images"):
        encode_examples(model, [], [])


# ---- folders ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, image in zip(("b.png", "a.JPG"), IMAGES):
        image.save(tmp_path / name)
    (tmp_path / "b.txt").write_text("a dog\n\n the dog \n")
    (tmp_path / "notes.md").write_text("no image")
    return tmp_path


def test_a_folder_s_images_and_captions(folder):
    images, captions = read_folder(folder, ["a scene"])
    assert [image.size for image in images] == [(128, 128)] * 2
    assert captions == [["a scene"], ["a dog", "the dog"]]


def test_mistakes_in_a_folder_get_a_sentence(folder, tmp_path):
    with one_sentence("no folder"):
        read_folder(tmp_path / "none", ["x"])
    (tmp_path / "empty").mkdir()
    with one_sentence("no images"):
        read_folder(tmp_path / "empty", ["x"])
    for prompts in ([], [" "]):
        with one_sentence("--prompt", "a.txt", "a.JPG"):
            read_folder(folder, prompts)
    (folder / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with one_sentence("UTF-8"):
        read_folder(folder, ["x"])
    (folder / "a.txt").unlink()
    (folder / "c.png").write_bytes(b"no image")
    with one_sentence("c.png", "not an image"):
        read_folder(folder, ["x"])


def test_a_folder_is_taught_with_what_the_model_knows(model, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "load", lambda source, **place: model)
    monkeypatch.setattr(module, "generate_examples", lambda m, prompts, seed: asked.append(prompts) or iter(()))
    how = {"steps": 1, "prior_images": 3}
    for more, expected in (
        ({}, small_world_prompts(3)),
        ({"model": "other"}, []),
        ({"model": "other", "class_prompt": ["x", "y"]}, ["x", "y", "x"]),
        ({"prior_images": 0}, []),
    ):
        taught = teach_folder(IMAGES, [["a"], ["b"]], **how | more)
        assert lora_layers(taught.unet) and asked.pop() == expected
    with one_sentence("learning_rate"):
        teach_folder(IMAGES, [["a"], ["b"]], learning_rate=0)

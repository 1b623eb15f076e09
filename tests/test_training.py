"""Training: resumes exactly, never overwrites a run, and its pieces do what they say."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import CLIPModel

import ldm_course as ldm
from ldm_course.errors import InputError
from ldm_course.scenes import HELD_OUT, Scene, is_held_out, training_scene
from ldm_course.training import data, evaluate, further, judge, loop, score, stages, vae
from ldm_course.training.card import main as write_card
from ldm_course.training.card import model_card
from ldm_course.training.clip import (
    ANGLE_WEIGHT,
    Trainer,
    alike_but_for,
    clip_config,
    squared_cosines,
    tokenize,
    train_tokenizer,
    true_of,
)
from ldm_course.training.score import Share
from ldm_course.vae import AutoencoderKL, VAEConfig


def options(out: Path, **changes) -> loop.Options:
    settings = {"steps": 12, "batch_size": 8, "precision": "no", "pictures": 100, "checkpoint_minutes": 1e-9}
    return loop.Options(out=out, **{**settings, **changes})


def regression(stop_at: int | None = None):
    """A tiny task whose loss depends on the pictures drawn and on torch's noise; can break off at a step."""

    def loss_of(model: nn.Module, indices: np.ndarray, step: int):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.tensor(indices, dtype=torch.float32)[:, None] / 100
        return (model(x) - 3 * x + 0.1 * torch.randn_like(x)).square().mean(), {}

    return loss_of


def fresh_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_a_run_broken_off_and_resumed_ends_with_the_same_weights(tmp_path):
    whole = loop.train("whole", fresh_model(), regression(), options(tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        loop.train("part", fresh_model(), regression(stop_at=7), options(tmp_path / "b"))
    resumed = loop.train("rest", fresh_model(), regression(), options(tmp_path / "b", resume=True))
    for a, b in zip(whole.parameters(), resumed.parameters()):
        assert torch.equal(a, b)
    assert loop.summary(tmp_path / "b")["step"] == 12


def test_a_run_without_time_left_says_so(tmp_path, capsys):
    whole = loop.train("whole", fresh_model(), regression(), options(tmp_path))
    resumed = loop.train("whole", fresh_model(), regression(stop_at=0), options(tmp_path, resume=True))
    assert "all of its time is spent" in capsys.readouterr().out
    assert torch.equal(resumed.weight, whole.weight)


def test_the_average_is_returned_not_the_last_weights(tmp_path):
    model = fresh_model()
    averaged = loop.train("ema", model, regression(), options(tmp_path, learning_rate=0.1))
    assert not torch.equal(averaged.weight, model.weight.cpu())


def test_the_last_two_checkpoints_remain(tmp_path):
    loop.train("run", fresh_model(), regression(), options(tmp_path))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-0000011", "step-0000012"}


def test_an_unfinished_checkpoint_is_ignored(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        loop.train("part", fresh_model(), regression(stop_at=5), options(tmp_path))
    (tmp_path / "checkpoints" / "step-0000099.tmp").mkdir()
    assert loop.checkpoints(tmp_path)[0].name == "step-0000005"


def test_an_earlier_run_is_never_overwritten(tmp_path):
    loop.train("first", fresh_model(), regression(), options(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="--resume"):
        loop.train("second", fresh_model(), regression(), options(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_processes_share_the_joint_batch():
    o = options(Path("unused"), batch_size=10)
    joint = loop.batch_indices(o, 3, 0, 1)
    parts = [loop.batch_indices(o, 3, rank, 2) for rank in range(2)]
    assert sorted(np.concatenate(parts)) == sorted(joint)
    assert not np.array_equal(joint, loop.batch_indices(o, 4, 0, 1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": None}, "--steps"),
        ({"steps": 0}, "steps"),
        ({"minutes": -1.0}, "minutes"),
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "int8"}, "int8"),
        ({"minutes": float("nan")}, "minutes"),
        ({"learning_rate": float("inf")}, "learning_rate"),
    ],
)
def test_wrong_options_are_named(tmp_path, changes, named):
    with pytest.raises(InputError, match=named):
        options(tmp_path, **changes)


def test_learning_rate_rises_stays_and_falls():
    assert loop.learning_rate_at(0, 0.0) < 0.05
    assert loop.learning_rate_at(500, 0.5) == 1.0
    assert loop.learning_rate_at(900, 0.85) == pytest.approx(0.5)
    assert loop.learning_rate_at(1000, 1.0) == 0.0


def test_no_training_picture_is_held_out():
    assert not any(is_held_out(training_scene(0, i)) for i in range(2000))


def test_pictures_are_rendered_once_and_equal_the_scenes(tmp_path):
    first = data.pictures(tmp_path, "train", 0, 3, 32)
    assert np.array_equal(first[2], np.asarray(training_scene(0, 2).render(32)))
    stamp = next(tmp_path.iterdir()).stat().st_mtime_ns
    data.pictures(tmp_path, "train", 0, 3, 32)
    (only,) = tmp_path.iterdir()
    assert only.stat().st_mtime_ns == stamp


def test_normalised_latents_have_unit_spread_and_the_same_pictures():
    torch.manual_seed(0)
    config = VAEConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=1.0)
    before = AutoencoderKL(config).eval()
    images = np.stack([np.asarray(training_scene(0, i).render(64)) for i in range(8)])
    after = vae.normalise_latents(before, images)
    x = data.to_tensor(images)
    with torch.no_grad():
        old, new = before.encode(x), after.encode(x)
        assert torch.allclose(before.decode(old.mean), after.decode(new.mean), atol=1e-4)
        old_noise, new_noise = ((p.std / p.mean.std((0, 2, 3))[:, None, None]).mean((0, 2, 3)) for p in (old, new))
    assert torch.allclose(old_noise, new_noise, rtol=1e-3)  # the posterior's width, relative to the latents' spread
    latents = new.mean * after.config.scaling_factor
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-2)


def test_every_caption_word_is_one_token(tmp_path):
    tokenizer = train_tokenizer(tmp_path)
    words = (tmp_path / "known_words.txt").read_text().split()
    assert {"dog", "glasses", "running"} <= set(words)
    split = [word for word in words if len(tokenizer.tokenize(word)) != 1]
    assert not split, f"rare words may split, but these are captions' own: {split}"


def test_captions_that_say_less_are_true_of_more_pictures():
    shown = [Scene(animal="dog").attributes(), Scene(animal="dog", accessory="hat").attributes()]
    said = [{"animal": "dog"}, {"animal": "dog", "accessory": "hat"}]
    assert true_of(said, shown).tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_a_group_differs_in_one_attribute_only():
    groups = alike_but_for("animal", 0, 3000)
    assert sorted(i for group in groups for i in group) == list(range(3000))
    largest = [training_scene(0, int(i)).attributes() for i in max(groups, key=len)]
    assert len({scene.pop("animal") for scene in largest}) > 1
    assert all(scene == largest[0] for scene in largest)


def test_clip_compares_within_a_group_only(tmp_path):
    tokenizer = train_tokenizer(tmp_path)
    torch.manual_seed(0)
    trainer = Trainer(CLIPModel(clip_config(tokenizer)))
    pixels = torch.randn(4, 3, 128, 128)
    tokens, ends = tokenize(tokenizer, ["a dog", "a white cat running", "a bear", "a pig with a hat"], "cpu")
    assert tokens.shape == (4, 77) and ends.tolist() == [3, 5, 3, 6]

    def loss(pixels, groups, fits):
        torch.manual_seed(1)  # which of the tokens after the end is compared
        whole, parts = trainer(pixels, tokens, ends, torch.tensor(groups), fits)
        return (whole - ANGLE_WEIGHT * parts["overlap"]).item()

    # an untrained CLIP sees hardly a difference: its loss is that of a guess among those of the group
    assert loss(pixels, [0, 1, 2, 3], torch.eye(4)) == pytest.approx(0, abs=1e-6)
    assert loss(pixels, [0, 0, 1, 1], torch.eye(4)) == pytest.approx(math.log(2), abs=0.05)
    assert loss(pixels, [0, 0, 0, 0], torch.eye(4)) == pytest.approx(math.log(4), abs=0.05)
    exchanged, fits = pixels[[0, 1, 3, 2]], torch.eye(4)[[0, 1, 3, 2]]
    assert loss(exchanged, [0, 0, 1, 1], fits) == pytest.approx(loss(pixels, [0, 0, 1, 1], torch.eye(4)), rel=1e-5)


def test_differences_of_two_groups_are_at_right_angles_or_not():
    same = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    x, y, far = torch.tensor([[1.0, 0, 0], [0, 1, 0], [5, 6, 7]])
    assert squared_cosines(torch.stack([x, -x, far + x, far - x]), same, ~same) == pytest.approx(1)
    assert squared_cosines(torch.stack([x, -x, far + y, far - y]), same, ~same) == pytest.approx(0)
    assert squared_cosines(torch.stack([x, -x, x + y, -x - y]), same, ~same) == pytest.approx(0.5)
    one = torch.ones(2, 2).bool()
    assert squared_cosines(torch.stack([x, y]), one, ~one) == 0, "one group has no other"


def test_interval_is_wilsons():
    low, high = Share(75, 100).interval()
    assert (round(low, 3), round(high, 3)) == (0.657, 0.825)
    assert Share(10, 10).interval()[1] == pytest.approx(1.0)


def test_nearest_finds_a_copy():
    x = torch.rand(4, 12)
    assert evaluate.nearest(x[:1], x).item() == pytest.approx(0.0, abs=1e-3)


def test_test_scenes_are_held_out_as_asked():
    assert all(is_held_out(scene) for scene in score.test_scenes(50, 0, True))
    assert not any(is_held_out(scene) for scene in score.test_scenes(50, 0, False))
    assert {"animal": "dog", "accessory": "glasses"} in HELD_OUT


def test_half_precision_by_fp16_needs_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="bf16"):
        options(tmp_path, precision="fp16")


def test_evaluate_says_what_a_foreign_model_lacks(tmp_path):
    with pytest.raises(InputError, match="judge"):
        evaluate.evaluate(tmp_path)
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "model.safetensors").touch()
    with pytest.raises(InputError, match="training.json"):
        evaluate.evaluate(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"pictures": 1, "full": True}, "2 or more"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**62}, "at most 1,000,000,000"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"scheduler": "karras"}, "karras"),
        ({"num_inference_steps": 1001}, "from 1 to 1000"),
    ],
)
def test_evaluate_refuses_before_it_overwrites_a_table(tmp_path, changes, named):
    (tmp_path / "evaluation.json").write_text("an hour's work")
    with pytest.raises(InputError, match=named):
        evaluate.evaluate(out=tmp_path, **changes)
    assert (tmp_path / "evaluation.json").read_text() == "an hour's work"


def test_only_a_model_with_a_card_ships(tmp_path, monkeypatch):
    shipped, card = tmp_path / "shipped", tmp_path / "run" / "model" / "README.md"
    shipped.mkdir()
    (shipped / "README.md").write_text("old")
    monkeypatch.setattr(stages, "bundled_path", lambda: shipped)
    with pytest.raises(InputError, match="README.md"):
        stages.ship(tmp_path / "run")
    assert (shipped / "README.md").read_text() == "old"
    card.parent.mkdir(parents=True)
    card.write_text("new")
    stages.ship(tmp_path / "run")
    assert (shipped / "README.md").read_text() == "new"


def test_rendering_broken_off_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "tqdm", stop)
    with pytest.raises(KeyboardInterrupt):
        data.pictures(tmp_path, "train", 0, 3, 32)
    assert not list(tmp_path.iterdir())


def test_a_stage_says_which_one_must_come_first(tmp_path):
    with pytest.raises(InputError, match="train vae"):
        stages.train_stage("judge", tmp_path, steps=1)
    with pytest.raises(InputError, match="clip, vae, judge, unet, decoder, all"):
        stages.train_stage("gan", tmp_path)


@pytest.mark.slow
def test_all_stages_end_in_a_model_that_paints(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "ROUND_TRIPS", 8)
    small = {"batch_size": 4, "pictures": 16, "precision": "no"}
    (tmp_path / "notes.txt").write_text("Trained on the kitchen table.\n")
    stages.train_stage("all", tmp_path, steps=2, **small)
    folder = tmp_path / "model"
    model = ldm.load(folder)
    assert ldm.txt2img(model, "a dog", seed=0, num_inference_steps=2).size == (128, 128)
    result = evaluate.evaluate(
        folder, pictures=2, out=tmp_path / "evaluation", train_pictures=16, num_inference_steps=2
    )
    assert result["held out: all prompted attributes right"].count == 2
    write_card(folder, tmp_path / "evaluation")
    card = (folder / "README.md").read_text()
    shown = re.findall(r"!\[[^]]{20,}\]\((.+)\)", card)
    assert shown == ["pictures/seen.jpg", "pictures/held-out.jpg"]
    assert all(Image.open(folder / name).width == 10 * 132 + 4 for name in shown)
    assert "dog + glasses" in card and "| the UNet | 16 | 4 | 2 |" in card and "kitchen table" in card

    encoded = list((tmp_path / "data").glob("*.safetensors"))
    assert {path.name.split("-")[0] for path in encoded} == {"latents", "contexts"}
    before = {path: path.stat().st_mtime_ns for path in encoded}
    stages.train_stage("unet", tmp_path, steps=3, resume=True, **small)
    assert before == {path: path.stat().st_mtime_ns for path in encoded}, "encoded once"
    assert json.loads((folder / "training.json").read_text())["unet"]["step"] == 3

    stages.train_stage("decoder", tmp_path, steps=3, resume=True, **small)
    stages.train_stage("vae", tmp_path, steps=3, resume=True, **small)
    before_refusal = (tmp_path / "vae" / "weights.safetensors").read_bytes()
    with pytest.raises(InputError, match="another encoder"):  # its latents are not those that the decoder learnt
        stages.train_stage("decoder", tmp_path, steps=4, resume=True, **small)
    assert (tmp_path / "vae" / "weights.safetensors").read_bytes() == before_refusal

    (tmp_path / "judge" / "weights.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="train the judge anew"):
        stages.read_judge(tmp_path)
    (tmp_path / "judge" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="train judge"):  # before an hour of training, not after it
        stages.train_stage("unet", tmp_path, steps=4, resume=True, **small)


def test_a_folder_with_a_run_is_refused_before_pictures_are_drawn(tmp_path):
    (tmp_path / "vae" / "checkpoints" / "step-0000001").mkdir(parents=True)
    with pytest.raises(InputError, match="--resume"):
        stages.train_stage("vae", tmp_path, steps=1, pictures=16)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(tmp_path, seed):
    with pytest.raises(InputError, match="seed"):
        stages.train_stage("vae", tmp_path, steps=1, seed=seed)


# ---- the full evaluation ---------------------------------------------------------------------------------------


def test_the_frechet_distance_is_that_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20_000, 3, generator=generator)
    assert further.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert further.frechet(a, b) < 0.01
    assert further.frechet(a, 2 * b + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(25 + 3 * (2 - 1) ** 2, rel=0.02)


def test_spread_is_the_distance_of_two_pictures():
    x = torch.full((2, 3, 128, 128), -1.0)
    assert further.spread(x) == 0
    x[1] = 0.0  # half of the range of a pixel
    assert further.spread(x) == pytest.approx(0.5)


def test_the_full_evaluation_measures_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(further, "STEPS", (1, 2))
    monkeypatch.setattr(further, "GUIDANCES", (1.0, 3.0))
    monkeypatch.setattr(further, "DEMO_STEPS", 2)
    monkeypatch.setattr(evaluate, "FRESH", 100)
    found = evaluate.evaluate(pictures=2, out=tmp_path, train_pictures=20, num_inference_steps=2, full=True)
    assert found["dpm++, 2 steps, guidance 7.5: all right"].count == 2
    for steps in (10, 20):
        assert found[f"dpm++, {steps} steps, guidance 3: all right"].count == 2
    assert found["demo: and not a pixel above it changes"] == Share(2, 2)
    assert {"steps-and-guidance.png", "demo-inpaint.png", "seen.png"} <= {path.name for path in tmp_path.iterdir()}
    painted, drawn = (found[f"Frechet distance of judge features, {to} to drawn"] for to in ("painted", "drawn"))
    assert min(painted, drawn) > 0, "none of these sets is another one"
    training = json.loads((ldm.bundled_path() / "training.json").read_text())
    card = model_card(training, as_json(tmp_path), ["seen"])
    assert "| demo: a dog with glasses, from noise |" in card


def as_json(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def test_shares_of_all_and_of_none_can_be_plotted(tmp_path):
    """Rounding puts 1 a hair outside its own interval for some counts, which matplotlib refuses."""
    steps = {name: {str(n): Share(n, n) for n in range(1, 200)} for name in further.STYLES}
    further.plots(steps, {"dpm++, 10 steps": {"1": Share(0, 3), "2": Share(100, 100)}}, tmp_path)
    assert (tmp_path / "steps-and-guidance.png").exists()


def test_what_was_measured_is_kept_when_evaluation_breaks_off(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(further, "variety", fails)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(pictures=2, out=tmp_path, train_pictures=20, num_inference_steps=2, full=True)
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert "held out: all prompted attributes right" in kept

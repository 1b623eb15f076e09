"""The stages, end to end, and what they refuse: parts that were not trained together, and other runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ldm_course as ldm
from ldm_course.errors import InputError
from ldm_course.evaluate import evaluate
from ldm_course.evaluate.model_card import main as write_card
from ldm_course.train import classifier, clip, loop, stages

SMALL = {"batch_size": 4, "dataset_size": 16, "precision": "no"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    """A run whose stages are those of the shipped model."""
    run = tmp_path_factory.mktemp("shipped")
    stages.take_from_model(ldm.bundled_path(), run, "clip")
    return run


@pytest.fixture
def run(shipped, tmp_path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "run"))


def change(run: Path, stage: str, prefix: str) -> None:
    """Another value for a stage's weights of this name, as if that part had been trained again."""
    path = run / stage / "weights.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    name = next(name for name in tensors if name.startswith(prefix))
    tensors[name] = tensors[name] + 1
    save_file(tensors, path, metadata=header)


def swap_two_tokens(run: Path) -> None:
    file = run / "clip" / "tokenizer" / "vocab.json"
    vocabulary = json.loads(file.read_text(encoding="utf-8"))
    vocabulary["dog</w>"], vocabulary["cat</w>"] = vocabulary["cat</w>"], vocabulary["dog</w>"]
    file.write_text(json.dumps(vocabulary), encoding="utf-8")


def drop_a_merge(run: Path) -> None:
    file = run / "clip" / "tokenizer" / "merges.txt"
    file.write_text(file.read_text(encoding="utf-8").rstrip().rpartition("\n")[0], encoding="utf-8")


# ---- parts that were trained together ----------------------------------------------------------------------------


def test_the_shipped_parts_assemble_to_the_shipped_model(run):
    folder = stages.assemble(run)
    assert (folder / stages.CHECKSUMS).read_text() == (ldm.bundled_path() / stages.CHECKSUMS).read_text()
    notes = json.loads((ldm.bundled_path() / "training.json").read_text())["notes"]
    assert json.loads((folder / "training.json").read_text())["notes"] == notes


@pytest.mark.parametrize(
    ("change_part", "named"),
    [
        (lambda run: change(run, "vae", "encoder"), ("unet", "VAE encoder")),
        (lambda run: change(run, "vae", "quant_conv"), ("unet", "VAE encoder")),
        (lambda run: change(run, "clip", "text_model"), ("unet", "text encoder")),
        (swap_two_tokens, ("clip", "tokenizer")),
        (drop_a_merge, ("clip", "tokenizer")),
    ],
)
def test_parts_that_never_met_are_refused(run, change_part: Callable[[Path], None], named):
    change_part(run)
    stage, part = named
    sentence = f"The {stage} in .* was trained with another {part} .* `ldm-course train {stage}` again"
    with pytest.raises(InputError, match=sentence):
        stages.assemble(run)
    with pytest.raises(InputError, match=sentence):  # before its training, not after it
        stages.train_stage("decoder", run, steps=1, **SMALL)
    if stage == "clip":
        with pytest.raises(InputError, match=sentence):
            stages.train_stage("unet", run, steps=1, **SMALL)
    assert not (run / "model").exists() and not (run / "data").exists()


@pytest.mark.parametrize(
    ("stage", "part"), [("vae", "decoder"), ("vae", "post_quant_conv"), ("clip", "vision_model")]
)
def test_parts_that_change_no_latent_and_no_context_may_change(run, stage, part):
    change(run, stage, part)
    ldm.load(stages.assemble(run), device="cpu")


@pytest.mark.parametrize("content", ["cut short", None])
def test_weights_that_do_not_say_how_they_were_trained_are_refused(run, content):
    path = run / "unet" / "weights.safetensors"
    path.write_text(content) if content else save_file(load_file(path), path)
    with pytest.raises(InputError, match="train the unet again"):
        stages.assemble(run)


# ---- starting from a model, and resuming -------------------------------------------------------------------------


def test_init_starts_from_a_models_weights(tmp_path):
    stages.train_stage("unet", tmp_path, steps=1, init=ldm.bundled_path(), **SMALL)
    old, new = (ldm.load(folder, device="cpu").unet.state_dict() for folder in (None, tmp_path / "model"))
    difference = max((old[name] - new[name]).abs().max() for name in old)
    assert 0 < difference < 1e-3
    training = json.loads((tmp_path / "model" / "training.json").read_text())
    assert training["unet"]["step"] == 1 and training["unet"]["started_from"]["unet"]["step"] == 6000
    assert training["vae"]["step"] == 29160 and training["decoder"]["step"] == 8752

    stages.train_stage("unet", tmp_path, steps=2, resume=True)  # without a word it is as before
    training = json.loads((tmp_path / "model" / "training.json").read_text())["unet"]
    assert training["options"]["batch_size"] == 4 and training["started_from"]["unet"]["step"] == 6000
    with pytest.raises(InputError, match="learning_rate 0.001 and cannot be resumed with 0.5"):
        stages.train_stage("unet", tmp_path, steps=3, learning_rate=0.5, resume=True)


@pytest.mark.parametrize("lacks", ["training.json", "judge"])
def test_init_takes_only_models_of_this_course(tmp_path, lacks):
    folder = Path(shutil.copytree(ldm.bundled_path(), tmp_path / "model"))
    path = folder / lacks
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(InputError, match="not a model trained by this course"):
        stages.train_stage("vae", tmp_path / "run", steps=1, init=folder, **SMALL)


@pytest.mark.slow
def test_all_stages_end_in_a_model_that_generates(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "ROUND_TRIPS", 8)
    monkeypatch.setattr(clip, "VOCABULARY_CAPTIONS", 1000)
    monkeypatch.setattr(evaluate, "FRESH", 100)
    (tmp_path / "notes.txt").write_text("Trained on the kitchen table.\n")
    stages.train_stage("all", tmp_path, steps=2, **SMALL)
    folder = tmp_path / "model"
    model = ldm.load(folder, device="cpu")
    assert ldm.txt2img(model, "a dog", seed=0, num_inference_steps=2).size == (128, 128)
    settings = {"images": 2, "out": tmp_path / "evaluation", "num_inference_steps": 2}
    assert evaluate.evaluate(folder, **settings)["held out: all prompted attributes right"].count == 2
    write_card(folder, tmp_path / "evaluation")
    card = (folder / "README.md").read_text()
    shown = re.findall(r"!\[[^]]{20,}\]\((.+)\)", card)
    assert shown == ["pictures/seen.jpg", "pictures/held-out.jpg"]
    assert all(Image.open(folder / name).width == 10 * 132 + 4 for name in shown)
    assert "dog + glasses" in card and "| the UNet | 16 | 4 | 2 |" in card and "kitchen table" in card

    encoded = list((tmp_path / "data").glob("*.safetensors"))
    assert {path.name.split("-")[0] for path in encoded} == {"latents", "contexts"}
    before = {path: path.stat().st_mtime_ns for path in encoded}
    stages.train_stage("unet", tmp_path, steps=3, resume=True, **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in encoded}, "encoded once"
    assert json.loads((folder / "training.json").read_text())["unet"]["step"] == 3
    stages.train_stage("decoder", tmp_path, steps=3, resume=True, **SMALL)

    stages.train_stage("vae", tmp_path, steps=3, resume=True, **SMALL)
    weights = (tmp_path / "vae" / "weights.safetensors").read_bytes()
    for stage in ("classifier", "unet", "decoder"):  # its latents are not those that they learnt
        with pytest.raises(InputError, match=f"{stage} cannot be resumed|The unet in .* train unet` again"):
            stages.train_stage(stage, tmp_path, steps=4, resume=True, **SMALL)
    assert (tmp_path / "vae" / "weights.safetensors").read_bytes() == weights
    with safe_open(tmp_path / "vae" / "weights.safetensors", "pt") as file:
        assert set(json.loads(file.metadata()["training"])) == {"vae"}, "these weights have not been to the decoder"


# ---- refusals before any work --------------------------------------------------------------------------------------


def test_a_stage_says_which_one_must_come_first(tmp_path):
    for stage, named in (("classifier", "train vae"), ("decoder", "train vae"), ("gan", "'decoder', 'all'")):
        with pytest.raises(InputError, match=named):
            stages.train_stage(stage, tmp_path, steps=1)


def test_the_unet_needs_the_classifier_before_its_training(run):
    (run / "classifier" / "weights.safetensors").unlink()
    for stage in ("unet", "decoder"):
        with pytest.raises(InputError, match="train classifier"):
            stages.train_stage(stage, run, steps=4, **SMALL)


def test_a_folder_with_a_run_is_refused_before_images_are_rendered(tmp_path):
    (tmp_path / "vae" / "checkpoints" / "step-0000001").mkdir(parents=True)
    with pytest.raises(InputError, match="--resume"):
        stages.train_stage("vae", tmp_path, steps=1, dataset_size=16)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_tokenizer_is_not_written_into_an_earlier_run(run, resume):
    (run / "clip" / "checkpoints" / "step-0000001").mkdir(parents=True)
    (run / "clip" / "options.json").write_text('{"parts": {}, "started_from": {}}')
    vocabulary = run / "clip" / "tokenizer" / "vocab.json"
    before = vocabulary.stat().st_mtime_ns
    with pytest.raises(InputError, match="--resume|cannot be resumed"):
        stages.train_stage("clip", run, steps=1, dataset_size=16, resume=resume)
    assert vocabulary.stat().st_mtime_ns == before


def test_only_a_model_with_a_card_ships(tmp_path, monkeypatch):
    model, shipped = tmp_path / "run" / "model", tmp_path / "shipped"
    monkeypatch.setattr(stages, "bundled_path", lambda: shipped)
    for folder in (model, shipped):
        folder.mkdir(parents=True)
    with pytest.raises(InputError, match="README.md"):
        stages.ship(tmp_path / "run")
    assert shipped.exists()
    (model / "README.md").write_text("new")
    stages.ship(tmp_path / "run")
    assert (shipped / "README.md").read_text() == "new"


def test_every_stage_has_a_recipe_that_the_loop_accepts():
    assert set(stages.RECIPES) == set(stages.TRAINED_WITH) == set(stages.ORDER)
    for stage in stages.ORDER:
        loop.Options(out=Path(stage), **stages.RECIPES[stage])

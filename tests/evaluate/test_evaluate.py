"""Evaluation: refuses before it overwrites, keeps what it has measured, and measures everything."""

from __future__ import annotations

import json

import pytest

from ldm_course.errors import InputError
from ldm_course.evaluate import evaluate, sweeps
from ldm_course.evaluate.metrics import Share

QUICK = {"images": 2, "num_inference_steps": 2, "full": True}


@pytest.fixture
def small(monkeypatch):
    """Little to measure on, and 20 training images to be near to."""
    monkeypatch.setattr(evaluate, "FRESH", 100)
    whole = evaluate.training_thumbnails
    monkeypatch.setattr(evaluate, "training_thumbnails", lambda folder, seed, count: whole(folder, seed, 20))


def test_a_foreign_models_lack_is_named(tmp_path):
    with pytest.raises(InputError, match="judge"):
        evaluate.evaluate(tmp_path)
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "model.safetensors").touch()
    with pytest.raises(InputError, match="training.json"):
        evaluate.evaluate(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": 0}, "1 or more"),
        ({"images": 1, "full": True}, "2 or more"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**62}, "from 0 to 1,000,000,000"),
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


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_full_evaluation_measures_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "STEPS", (1, 2))
    monkeypatch.setattr(sweeps, "GUIDANCE_SCALES", (1.0, 3.0))
    monkeypatch.setattr(sweeps, "DEMO_STEPS", 2)
    found = evaluate.evaluate(out=tmp_path, **QUICK)
    assert found["dpm++, 2 steps, guidance 7.5: all right"].count == 2
    for steps in (10, 20):
        assert found[f"dpm++, {steps} steps, guidance 3: all right"].count == 2
    assert found["demo: and not a pixel above it changes"] == Share(2, 2)
    assert found["classifier: all five right, as rendered"].right >= 95
    assert found["VAE: PSNR on fresh images (dB)"] > 30
    assert {"steps-and-guidance.png", "demo-inpaint.png", "seen.png"} <= {path.name for path in tmp_path.iterdir()}
    names = (f"Frechet distance of classifier features, {what} to rendered" for what in ("generated", "rendered"))
    assert min(found[name] for name in names) > 0, "none of these sets is another one"
    assert set(json.loads((tmp_path / "evaluation.json").read_text())) == set(found)


@pytest.mark.usefixtures("small")
def test_what_was_measured_is_kept_when_evaluation_breaks_off(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "variety", fails)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate(out=tmp_path, **QUICK)
    assert "held out: all prompted attributes right" in json.loads((tmp_path / "evaluation.json").read_text())


def test_shares_of_all_and_of_none_can_be_plotted(tmp_path):
    """Rounding puts 1 a hair outside its own interval for some counts, which matplotlib refuses."""
    sweeps.plot_sweeps(
        {"ddim": {str(n): Share(n, n) for n in range(1, 200)}},
        {"dpm++, 10 steps": {"1": Share(0, 3), "2": Share(100, 100)}},
        tmp_path,
    )
    assert (tmp_path / "steps-and-guidance.png").exists()

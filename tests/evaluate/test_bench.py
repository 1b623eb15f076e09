"""`ldm-course bench`: fair turns, the same images, and a table that says what was measured."""

from __future__ import annotations

import json

import pytest
from helpers import needs_a_compiler, one_sentence, pixel_difference
from PIL import Image

from ldm_course.evaluate import bench
from ldm_course.io.load import load
from ldm_course.pipelines import SAMPLERS, txt2img


def test_contestants_take_turns_and_the_first_is_the_measure(monkeypatch):
    clock, turns = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])

    def contestant(who, seconds, shade):
        def generate():
            turns.append(who)
            clock[0] += seconds * (10 if len(turns) == 7 else 1)  # one slow moment
            return [Image.new("RGB", (2, 2), (100, 100, shade))]

        return generate

    theirs, ours = bench.compare(
        "txt2img", 1, {"theirs": contestant("a", 2.0, 100), "ours": contestant("b", 1.0, 106)}, rounds=3
    )
    assert turns == ["a", "b"] * 4
    assert (theirs.seconds, theirs.ratio, theirs.warm_up, theirs.largest, theirs.mean) == (2.0, 1.0, 2.0, 0, 0.0)
    assert (ours.seconds, ours.ratio, ours.warm_up, ours.largest, ours.mean) == (1.0, 0.5, 1.0, 6, 2.0)


@pytest.mark.slow
@needs_a_compiler()
def test_the_table_the_plot_and_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "CASES", (("txt2img", 1), ("img2img", 1), ("inpaint", 1)))
    rows = bench.bench(num_inference_steps=2, rounds=1, out=tmp_path / "new")
    assert [(row.task, row.who) for row in rows] == [
        (task, who) for task in ("txt2img", "img2img", "inpaint") for who in bench.COLOURS
    ]
    assert all(row.largest <= 1 for row in rows if row.who in (bench.OURS, bench.ONNX))
    assert all(0 < row.mean < 10 for row in rows if row.who in (bench.FAST, bench.ONNX_INT8))
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert len(written["rows"]) == 15 and written["steps"] == 2
    assert set(written["start_up"]) == {bench.ONNX, bench.ONNX_INT8} and min(written["start_up"].values()) > 0
    assert Image.open(tmp_path / "new" / "bench.png").width > 1000
    assert "img2img of 1, ours, bfloat16, compiled" in capsys.readouterr().out
    assert next(row for row in rows if row.who == bench.FAST).warm_up > 1, "it was compiled"


@pytest.mark.slow
def test_onnxruntime_makes_our_images_under_every_scheduler():
    model = load(device="cpu")
    theirs, start_up = bench.onnx_model(model, int8=False)
    assert start_up > 0
    for scheduler in SAMPLERS:
        options = {"scheduler": scheduler, "num_inference_steps": 10, "seed": 3}
        prompts = ["a dog with glasses", "a cat"]
        for a, b in zip(txt2img(model, prompts, **options), txt2img(theirs, prompts, **options)):
            assert pixel_difference(a, b) <= 1


def test_without_onnxruntime_it_is_left_out(tmp_path, monkeypatch, capsys, model):
    def contestants(models, *_):
        assert list(models) == [bench.OURS, bench.FAST]
        return {who: lambda: [Image.new("RGB", (8, 8))] for who in (bench.THEIRS, *models)}

    monkeypatch.setattr(bench, "load", lambda *_, **__: model)
    monkeypatch.setattr(bench, "contestants", contestants)
    monkeypatch.setattr(bench, "find_spec", lambda name: None if name == "onnxruntime" else name)
    bench.bench(num_inference_steps=2, rounds=1, out=tmp_path)
    assert 'pip install "ldm-course[export]"' in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"threads": 0}, {"num_inference_steps": 1}])
def test_wrong_numbers(tmp_path, wrong):
    with one_sentence("or more"):
        bench.bench(out=tmp_path / "none", **wrong)
    assert not (tmp_path / "none").exists()

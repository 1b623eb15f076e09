"""The notebooks' exercises: unsolved, solved, and with each typical mistake."""

from __future__ import annotations

import pytest
from lab_helpers import NOTEBOOKS, exercises, judge
from mistakes import MISTAKES

EXERCISES = [(name, title) for name in NOTEBOOKS for title in exercises(name)]
PLUGGED = {  # the solutions that run in the real pipeline
    ("01_autoencoder_vs_vae", "reparameterize"), ("02_unet", "time"), ("02_unet", "block"),
    ("03_groupnorm", "scale-and-shift"), ("03_groupnorm", "ddpm-mean"), ("03_groupnorm", "eta"),
    ("04_txt2img", "guided"), ("04_txt2img", "ddim"), ("05_img2img", "timesteps"),
    ("06_inpainting", "keep-known-region"), ("06_inpainting", "hook"),
}  # fmt: skip


def test_every_exercise_has_its_typical_mistakes():
    assert set(EXERCISES) == {(name, title) for name, titles in MISTAKES.items() for title in titles}
    assert all(len(answers) >= 3 for titles in MISTAKES.values() for answers in titles.values())


@pytest.mark.parametrize("name, title", EXERCISES)
def test_an_exercise_is_unsolved_and_its_solution_is_right(name, title, model):
    assert judge(name, title, None, model).status == "not tried"
    verdict = judge(name, title, exercises(name)[title][1], model)
    assert verdict.status == "right", verdict
    assert ("generated the same image" in verdict.message) == ((name, title) in PLUGGED), verdict


@pytest.mark.parametrize(
    "name, title, body, hint",
    [(name, title, *answer) for name, titles in MISTAKES.items() for title in titles for answer in titles[title]],
)
def test_a_typical_mistake_gets_its_hint(name, title, body, hint, model):
    head = exercises(name)[title][0].splitlines()[0]
    verdict = judge(name, title, f"{head}\n    {body}\n", model)
    assert verdict.status == "wrong" and hint in verdict.message, verdict

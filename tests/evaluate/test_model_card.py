"""The model card says what training and evaluation recorded."""

from __future__ import annotations

import yaml

from ldm_course.evaluate.model_card import model_card, read_training
from ldm_course.io.bundled import bundled_path

EVALUATION = {"demo: a dog with glasses": {"right": 87, "count": 100}, "VAE: PSNR": 31.63}


def test_the_card_has_a_row_for_each_measure_and_stage():
    card = model_card(read_training(bundled_path()), EVALUATION, ["seen"])
    metadata = {"license": "mit", "library_name": "diffusers", "pipeline_tag": "text-to-image"}
    assert yaml.safe_load(card.split("---")[1]) == metadata
    assert "| demo: a dog with glasses |  87.0%  (87/100, 95%: " in card and "| VAE: PSNR | 31.63 |" in card
    assert "| CLIP, whose text half is the text encoder | 20,000 | 64 | 2,401 | 25 |" in card
    assert "pictures/seen.jpg" in card and "pictures/held-out.jpg" not in card
    assert "{" not in card, "all is filled in"


def test_the_card_names_the_training_that_another_started_from():
    card = model_card(read_training(bundled_path()), EVALUATION, [])
    rows = [row for row in card.splitlines() if row.startswith("| the UNet")]
    assert rows == ["| the UNet, before | 20,000 | 32 | 47,477 | 373 |", "| the UNet | 30,000 | 32 | 6,000 | 27 |"]

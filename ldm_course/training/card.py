"""The model card, from what training and evaluation recorded: python -m ldm_course.training.card MODEL EVALUATION"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ldm_course.scenes import ATTRIBUTES, HELD_OUT
from ldm_course.training.score import THUMB, Share

WHAT = {
    "clip": "CLIP, whose text half is the text encoder",
    "vae": "the autoencoder",
    "judge": "the judge, which only evaluation uses",
    "unet": "the UNet",
    "decoder": "the autoencoder's decoder alone, once more",
}


def model_card(training: dict, evaluation: dict) -> str:
    """The card as Markdown, from training.json and evaluation.json."""
    held_out = ", ".join(" + ".join(pair.values()) for pair in HELD_OUT)
    values = "; ".join(f"{name}: {', '.join(allowed)}" for name, allowed in ATTRIBUTES.items())
    rows = [
        f"| {WHAT[stage]} | {facts['options']['pictures']:,} | {facts['options']['batch_size']} "
        f"| {facts['step']:,} | {facts['seconds'] / 60:.0f} |"
        for stage, facts in training.items()
        if stage in WHAT
    ]
    measured = [
        f"| {name} | {Share(**value) if isinstance(value, dict) else value} |" for name, value in evaluation.items()
    ]
    return "\n".join(
        [
            "---",
            "license: mit",
            "library_name: diffusers",
            "pipeline_tag: text-to-image",
            "---",
            "",
            "# The small model of ldm_course",
            "",
            "A latent diffusion model of Stable Diffusion 1.x's architecture, narrower, for cartoon scenes of",
            "128 x 128 pixels. It is made for learning: it runs on a laptop, and knows nothing but its small world.",
            "Load it with `ldm_course.load()`, or with `diffusers.StableDiffusionPipeline.from_pretrained(folder)`.",
            "",
            "## Data",
            "",
            f"Pictures drawn by `ldm_course.scenes`, by seed. {values}. Never shown to CLIP, autoencoder or UNet:",
            f"{held_out}. Nothing else was used: no photographs, no people, no text from elsewhere.",
            "",
            "## Training",
            "",
            f"`ldm-course train`, stage by stage, on {training['machine']}.",
            "",
            "| part | pictures | batch | steps | minutes |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            training.get("notes", ""),
            "## Evaluation",
            "",
            "`ldm-course evaluate`; the judge is a classifier trained apart, also on held-out combinations.",
            f"Distances are of {THUMB} x {THUMB} thumbnails, root mean square, the range of a pixel being 1.",
            "",
            "| measure | value |",
            "| --- | --- |",
            *measured,
            "",
            "## Limits",
            "",
            "Words outside `tokenizer/known_words.txt` mean nothing to it, and a warning says so. Two animals,",
            "numbers and positions cannot be asked for.",
            "",
            "## Licence",
            "",
            "MIT, as the course. The weights come from this project's own training alone.",
            "",
        ]
    )


def main(model_folder: Path, evaluation_folder: Path) -> None:
    """Write README.md into the model's folder."""
    training = json.loads((model_folder / "training.json").read_text())
    evaluation = json.loads((evaluation_folder / "evaluation.json").read_text())
    (model_folder / "README.md").write_text(model_card(training, evaluation), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

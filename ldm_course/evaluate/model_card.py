"""The model card, from the records of training and evaluation.

python -m ldm_course.evaluate.model_card MODEL_FOLDER EVALUATION_FOLDER
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from PIL import Image

from ldm_course.evaluate.metrics import THUMB, Share
from ldm_course.scenes import ATTRIBUTES, HELD_OUT

WHAT = {
    "clip": "CLIP, whose text half is the text encoder",
    "vae": "the autoencoder",
    "classifier": "the classifier, which only evaluation uses",
    "unet": "the UNet",
    "decoder": "the autoencoder's decoder alone, once more",
}

# Images that evaluation leaves in its folder, by name, and what they show.
SHEETS = {
    "seen": "The first 100 test prompts of combinations that the model was trained on, none selected.",
    "held-out": "The first 100 test prompts of combinations that it has never seen, none selected.",
    "steps-and-guidance": "The share of images with all five attributes right, over steps and guidance scales.",
    "demo-txt2img": "A dog with glasses, from noise: ten seeds, from 10,000 on.",
    "demo-img2img": "Glasses for a plain dog, by image-to-image: ten renderings, and below each what came of it.",
    "demo-inpaint": "The lower half of a sitting dog in-painted as running: ten renderings, and what came of them.",
}

CARD = """\
---
{metadata}
---

# The small model of ldm_course

A latent diffusion model of Stable Diffusion 1.x's architecture, narrower, for cartoon scenes of
128 x 128 pixels. It is made for learning: it runs on a laptop, and knows nothing but its small world.
Load it with `ldm_course.load()`, or the folder `ldm_course.bundled_path()` with diffusers'
`StableDiffusionPipeline.from_pretrained`.

## Data

Images rendered by `ldm_course.scenes`, by seed. {values}. Never shown to CLIP, autoencoder or UNet:
{held_out}. Two in five of the UNet's images are chimeras, animals made of the parts of two
(`ldm_course/scenes/chimera.py`). They show parts of these combinations, but never an animal's head and face
together, and no part of a sleeping elephant. Nothing else was used: no photographs, no people, no text
from elsewhere.

## Training

`ldm-course train`, stage by stage, on {machine}; `training.json` has all options.

| part | images | batch | steps | minutes |
| --- | ---: | ---: | ---: | ---: |
{stages}

{notes}
## Evaluation

`ldm-course evaluate --full`; the classifier is trained apart, also on held-out combinations.
Distances are of {thumb} x {thumb} thumbnails, root mean square, the range of a pixel being 1.

| measure | value |
| --- | --- |
{measures}

{sheets}
## Limits

Words outside `tokenizer/known_words.txt` mean nothing to it, and a warning says so. Two animals,
numbers and positions cannot be asked for.

## Licence

MIT, as the course. The weights come from this project's own training alone.
"""


def read_training(model_folder: Path) -> dict[str, Any]:
    """How a model was trained, by stage, from its training.json; "machine" and "notes" beside the stages."""
    return json.loads((model_folder / "training.json").read_text(encoding="utf-8"))


def model_card(training: dict[str, Any], evaluation: dict[str, Any], sheets: list[str]) -> str:
    """The card as Markdown, from `read_training`, evaluation.json, and the names of the SHEETS that there are."""
    measured = {name: Share(**value) if isinstance(value, dict) else value for name, value in evaluation.items()}
    metadata = ModelCardData(license="mit", library_name="diffusers", pipeline_tag="text-to-image")
    return CARD.format(
        metadata=metadata.to_yaml(),
        values="; ".join(f"{name}: {', '.join(allowed)}" for name, allowed in ATTRIBUTES.items()),
        held_out=", ".join(" + ".join(pair.values()) for pair in HELD_OUT),
        machine=training["machine"],
        stages="\n".join(_rows(training)),
        notes=training.get("notes", ""),
        thumb=THUMB,
        measures="\n".join(f"| {name} | {value} |" for name, value in measured.items()),
        sheets="\n".join(f"![{SHEETS[name]}](pictures/{name}.jpg)\n\n{SHEETS[name]}\n" for name in sheets),
    )


def _rows(training: dict[str, Any], suffix: str = "") -> Iterator[str]:
    """A row for each stage, after those for the weights that it started from."""
    for stage, facts in training.items():
        if stage in WHAT:
            yield from _rows(facts.get("started_from", {}), ", before")
            options, minutes = facts["options"], facts["seconds"] / 60
            yield (
                f"| {WHAT[stage]}{suffix} | {options['dataset_size']:,} | {options['batch_size']} "
                f"| {facts['step']:,} | {minutes:.0f} |"
            )


def main(model_folder: Path, evaluation_folder: Path) -> None:
    """Write README.md and its images into the model's folder."""
    evaluation = json.loads((evaluation_folder / "evaluation.json").read_text(encoding="utf-8"))
    pictures = model_folder / "pictures"
    sheets = [name for name in SHEETS if (evaluation_folder / f"{name}.png").is_file()]
    shutil.rmtree(pictures, ignore_errors=True)  # those of an earlier evaluation
    pictures.mkdir()
    for name in sheets:
        Image.open(evaluation_folder / f"{name}.png").convert("RGB").save(pictures / f"{name}.jpg", quality=88)
    card = model_card(read_training(model_folder), evaluation, sheets)
    (model_folder / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The model card, from what training and evaluation recorded: python -m ldm_course.training.card MODEL EVALUATION"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from ldm_course.scenes import ATTRIBUTES, HELD_OUT
from ldm_course.training.score import THUMB, Share

WHAT = {
    "clip": "CLIP, whose text half is the text encoder",
    "vae": "the autoencoder",
    "judge": "the judge, which only evaluation uses",
    "unet": "the UNet",
    "decoder": "the autoencoder's decoder alone, once more",
}

# Pictures that evaluation leaves in its folder, by name, and what they show.
SHEETS = {
    "seen": "The first 100 test prompts of combinations that the model was trained on, none selected.",
    "held-out": "The first 100 test prompts of combinations that it has never seen, none selected.",
    "steps-and-guidance": "The share of pictures with all five attributes right, over steps and guidance scales.",
    "demo-txt2img": "A dog with glasses, from noise: ten seeds, from 10,000 on.",
    "demo-img2img": "Glasses for a plain dog, by image-to-image: ten drawings, and below each what came of it.",
    "demo-inpaint": "The lower half of a sitting dog painted anew as running: ten drawings, and what came of them.",
}


def model_card(training: dict, evaluation: dict, sheets: list[str]) -> str:
    """The card as Markdown, from training.json, evaluation.json, and the names of the SHEETS that there are."""
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
            "Load it with `ldm_course.load()`, or the folder `ldm_course.bundled_path()` with diffusers'",
            "`StableDiffusionPipeline.from_pretrained`.",
            "",
            "## Data",
            "",
            f"Pictures drawn by `ldm_course.scenes`, by seed. {values}. Never shown to CLIP, autoencoder or UNet:",
            f"{held_out}. Nothing else was used: no photographs, no people, no text from elsewhere.",
            "",
            "## Training",
            "",
            f"`ldm-course train`, stage by stage, on {training['machine']}; some stages in several runs, of which",
            "`training.json` has the last one's options.",
            "",
            "| part | pictures | batch | steps | minutes |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            training.get("notes", ""),
            "## Evaluation",
            "",
            "`ldm-course evaluate --full`; the judge is a classifier trained apart, also on held-out combinations.",
            f"Distances are of {THUMB} x {THUMB} thumbnails, root mean square, the range of a pixel being 1.",
            "",
            "| measure | value |",
            "| --- | --- |",
            *measured,
            "",
            *(f"![{SHEETS[name]}](pictures/{name}.jpg)\n\n{SHEETS[name]}\n" for name in sheets),
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
    """Write README.md and its pictures into the model's folder."""
    training = json.loads((model_folder / "training.json").read_text())
    evaluation = json.loads((evaluation_folder / "evaluation.json").read_text())
    sheets = [name for name in SHEETS if (evaluation_folder / f"{name}.png").is_file()]
    shutil.rmtree(model_folder / "pictures", ignore_errors=True)  # those of an earlier evaluation
    (model_folder / "pictures").mkdir()
    for name in sheets:
        picture = Image.open(evaluation_folder / f"{name}.png").convert("RGB")
        picture.save(model_folder / "pictures" / f"{name}.jpg", quality=88)
    (model_folder / "README.md").write_text(model_card(training, evaluation, sheets), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

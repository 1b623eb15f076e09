"""How good is a model? Reconstruction, retrieval, and whether its images show what the prompt asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel

from ldm_course.errors import InputError, check_choice
from ldm_course.evaluate import sweeps
from ldm_course.evaluate.classifier import WEIGHTS, Classifier, classify, load_classifier
from ldm_course.evaluate.metrics import (
    THUMB,
    Share,
    all_right,
    nearest,
    psnr,
    render,
    sample_scenes,
    test_scenes,
    thumbnails,
)
from ldm_course.evaluate.model_card import read_training
from ldm_course.images import to_pil
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import SAMPLERS
from ldm_course.sampling import check_guidance
from ldm_course.scenes import ATTRIBUTES, HELD_OUT, Scene, contact_sheet
from ldm_course.scenes.dataset import render_scenes
from ldm_course.text import tokenize

FRESH = 500  # rendered images that the model never saw, for the VAE and the classifier


def evaluate(
    model_folder: Path | None = None,
    *,
    images: int | None = None,
    seed: int = 0,
    out: Path = Path("runs/evaluation"),
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    scheduler: str = "ddim",
    full: bool = False,
) -> dict[str, object]:
    """Measure a model trained by `ldm-course train`, print the table, and write it and its images into `out`.

    Args:
        model_folder: None is the model that ships with the package.
        images: how many to generate of seen, and again of held-out combinations; None is 200, or 1,000 with `full`.
        num_inference_steps, guidance_scale, scheduler: as in `txt2img`.
        full: also distances between sets of images, of all of them; variety within up to 10 prompts; and all
            samplers over steps, guidance scales, and the three demos, on a tenth of `images` for each.

    Returns the table: a number, a `Share` or a text by the name of its row.

    Raises:
        InputError: if the folder has no classifier or no training.json (only models trained by this course have
            them), or an argument is out of range; an earlier table in `out` is then left as it is.
    """
    images = (1000 if full else 200) if images is None else images
    if images < 1 + full:
        raise InputError(f"The number of images must be {1 + full} or more.")
    if not 0 <= seed <= 10**9:
        raise InputError(f"seed is {seed}; it must be from 0 to 1,000,000,000, as other seeds are made of it.")
    check_guidance(guidance_scale)
    check_choice("scheduler", scheduler, tuple(SAMPLERS))
    folder = bundled_path() if model_folder is None else Path(model_folder)
    for name in (WEIGHTS, "training.json"):
        if not (folder / name).exists():
            raise InputError(f"{folder} has no {name}, which only models trained by this course have.")
    model, classifier = load(folder), load_classifier(folder)
    model.schedule.timesteps(num_inference_steps)  # raises if it has not so many
    out.mkdir(parents=True, exist_ok=True)
    trained, started = read_training(folder)["unet"]["options"], time.monotonic()

    report = Report(out / "evaluation.json")
    fresh = test_scenes(FRESH, seed, None)
    rendered = render(fresh)
    decoded, truth = round_trip(model, rendered), [scene.attributes() for scene in fresh]
    report.add({"VAE: PSNR on fresh images (dB)": round(psnr(rendered, decoded).mean().item(), 2)})
    for label, x in (("as rendered", rendered), ("after the VAE", decoded)):
        report.add({f"classifier: all five right, {label}": all_right(classify(classifier, x), truth)})
    report.add({"CLIP: right caption among 100": retrieval(folder, model, fresh[:100], rendered[:100])})
    settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "scheduler": scheduler}
    training = training_thumbnails(out / "data", trained["seed"], trained["dataset_size"])
    for label, held_out in (("seen", False), ("held out", True)):
        scenes = test_scenes(images, seed, held_out)
        generated = sample_scenes(model, scenes, seed, settings, label)
        contact_sheet(to_pil(generated[:100]), 10).save(out / f"{label.replace(' ', '-')}.png")
        report.add(_prompts_followed(label, scenes, classify(classifier, generated)))
        distance = nearest(thumbnails(generated), training).median().item()
        report.add({f"{label}: distance to nearest training image": round(distance, 4)})
        if full and not held_out:
            report.add(sweeps.distances(classifier, generated, seed))
    distance = nearest(thumbnails(rendered), training).median().item()
    report.add({"fresh renderings: distance to nearest training image": round(distance, 4)})
    if full:
        _add_sweeps(report, model, classifier, max(2, images // 10), seed, out)
    report.add({"settings": f"{num_inference_steps} steps of {scheduler}, guidance {guidance_scale}"})
    report.add({"minutes": round((time.monotonic() - started) / 60, 1)})
    return report.rows


class Report:
    """The table: printed row by row as it grows and kept in a file, so that nothing is lost if the run breaks off."""

    def __init__(self, file: Path):
        self.file, self.rows = file, dict[str, object]()

    def add(self, rows: Mapping[str, object]) -> None:
        """Print these rows, and write the file again with all there are."""
        for name, value in rows.items():
            print(f"{name:68} {value}", flush=True)
        self.rows |= rows
        self.file.write_text(json.dumps(self.rows, indent=2, default=asdict) + "\n", encoding="utf-8")


def _prompts_followed(label: str, scenes: list[Scene], found: list[dict[str, str]]) -> dict[str, Share]:
    """The share of images that show all that was asked for; of each attribute; of each held-out combination."""
    asked = [scene.attributes() for scene in scenes]
    rows = {f"{label}: all prompted attributes right": all_right(found, asked)}
    for name in ATTRIBUTES:
        rows[f"{label}: {name} right"] = Share(sum(f[name] == a[name] for f, a in zip(found, asked)), len(scenes))
    for pair in HELD_OUT:
        those = [i for i, attributes in enumerate(asked) if pair.items() <= attributes.items()]
        if those:
            right = sum(found[i] == asked[i] for i in those)
            rows[f"{label}: {' and '.join(pair.values())}, all right"] = Share(right, len(those))
    return rows


def _add_sweeps(
    report: Report, model: LatentDiffusion, classifier: Classifier, count: int, seed: int, out: Path
) -> None:
    report.add(sweeps.variety(model, seed, min(count, 10)))
    report.add(sweeps.demos(model, classifier, count, seed, out))
    steps = sweeps.sweep_steps(model, classifier, count, seed)
    for name, shares in steps.items():
        report.add({f"{name}, {n} steps, guidance 7.5: all right": share for n, share in shares.items()})
    guidance = sweeps.sweep_guidance(model, classifier, count, seed)
    for name, shares in guidance.items():
        report.add({f"{name}, guidance {scale}: all right": share for scale, share in shares.items()})
    sweeps.plot_sweeps(steps, guidance, out)


def round_trip(model: LatentDiffusion, x: Tensor) -> Tensor:
    """Images (n, 3, h, w) through the encoder, as its mean, and back through the decoder, on the CPU."""
    return model.decode(model.encode(x)).clamp(-1, 1).cpu()


@torch.no_grad()
def retrieval(folder: Path, model: LatentDiffusion, scenes: list[Scene], x: Tensor) -> Share:
    """For how many images CLIP ranks their own full caption (or an equal one) first among all."""
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    texts = [scene.caption() for scene in scenes]
    logits = clip(input_ids=tokenize(model.tokenizer, texts), pixel_values=x).logits_per_image
    return Share(sum(texts[j] == texts[i] for i, j in enumerate(logits.argmax(1).tolist())), len(texts))


def training_thumbnails(folder: Path, seed: int, count: int) -> Tensor:
    """The images that the UNet was trained on, small and flat: (count, 32 * 32 * 3), in [0, 1]."""
    pixels = render_scenes(folder, "mixed", seed, count, THUMB)
    return torch.from_numpy(np.array(pixels)).float().flatten(1) / 255

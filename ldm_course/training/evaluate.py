"""How good is the model? Reconstruction, retrieval, and whether its pictures show what the prompt asked for."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel

from ldm_course.checkpoint import LatentDiffusion, bundled_path, load
from ldm_course.errors import InputError
from ldm_course.images import to_pil, to_tensor
from ldm_course.inputs import check_choice, check_guidance, check_seed
from ldm_course.pipelines import GUIDANCE_SCALE, NUM_INFERENCE_STEPS
from ldm_course.scenes import ATTRIBUTES, HELD_OUT, Scene, contact_sheet
from ldm_course.schedulers import SCHEDULERS
from ldm_course.training import data, further
from ldm_course.training.clip import tokenize
from ldm_course.training.judge import load_judge, read
from ldm_course.training.score import THUMB, Share, all_right, paint, test_scenes, thumbnails

FRESH = 500  # drawings that the model never saw, for the VAE and the judge


def evaluate(
    model_folder: Path | None = None,
    *,
    pictures: int | None = None,
    seed: int = 0,
    out: Path = Path("runs/evaluation"),
    train_seed: int | None = None,
    train_pictures: int | None = None,
    num_inference_steps: int = NUM_INFERENCE_STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
    scheduler: str = "ddim",
    full: bool = False,
) -> dict[str, object]:
    """Measure a model trained by `ldm-course train`, print the table, and write it and its pictures into `out`.

    Args:
        model_folder: None is the model that ships with the package.
        pictures: how many to paint of seen, and again of held-out combinations: 200, or 1,000 of the full table.
        train_seed, train_pictures: of the run that made the model, to find the nearest training picture; None is
            what its training.json says.
        full: also distances between sets of pictures, of all of them; variety within up to 10 prompts; and all
            schedulers over steps, guidance scales, and the three demos, on a tenth of `pictures` for each.

    Raises:
        InputError: if the folder has no judge or no training.json (only models trained by this course have them), or
            an argument is out of its range; an earlier table in `out` is then left as it is.
    """
    if pictures is None:
        pictures = 1000 if full else 200
    if pictures < 1 + full:
        raise InputError(f"The number of pictures must be {1 + full} or more.")
    check_seed(seed)
    if seed > 10**9:
        raise InputError(f"seed is {seed}; it must be at most 1,000,000,000, as other seeds are made of it.")
    check_guidance(guidance_scale)
    check_choice("scheduler", scheduler, tuple(SCHEDULERS))
    folder = bundled_path() if model_folder is None else Path(model_folder)
    for name in ("judge/model.safetensors", "training.json"):
        if not (folder / name).exists():
            raise InputError(f"{folder} has no {name}, which only models trained by this course have.")
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, judge = load(folder, device=device), load_judge(folder)
    model.schedule.timesteps(num_inference_steps)  # raises if it has not so many
    trained = json.loads((folder / "training.json").read_text())["unet"]["options"]
    started = time.monotonic()

    fresh = test_scenes(FRESH, seed, None)
    drawn = torch.cat([to_tensor(scene.render()) for scene in fresh])
    returned = round_trip(model, drawn)
    truth = [scene.attributes() for scene in fresh]
    report = Report(out / "evaluation.json")
    report.add({
        "VAE: PSNR on fresh pictures (dB)": round(psnr(drawn, returned).mean().item(), 2),
        "judge: all five right, as drawn": all_right(read(judge, drawn), truth),
        "judge: all five right, after the VAE": all_right(read(judge, returned), truth),
        "CLIP: right caption among 100": retrieval(folder, model, fresh[:100], drawn[:100]),
    })  # fmt: skip
    settings = {
        "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "scheduler": scheduler,
    }  # fmt: skip
    train_seed = trained["seed"] if train_seed is None else train_seed
    training = thumbnails_of_training(out, train_seed, train_pictures or trained["pictures"])
    for label, held_out in (("seen", False), ("held out", True)):
        scenes = test_scenes(pictures, seed, held_out)
        painted = paint(model, scenes, seed, settings, label)
        asked, answers = [scene.attributes() for scene in scenes], read(judge, painted)
        report.add({f"{label}: all prompted attributes right": all_right(answers, asked)})
        for name in ATTRIBUTES:
            hits = sum(answer[name] == wish[name] for answer, wish in zip(answers, asked))
            report.add({f"{label}: {name} right": Share(hits, len(scenes))})
        for pair in HELD_OUT if held_out else ():
            those = [i for i, wish in enumerate(asked) if pair.items() <= wish.items()]
            if those:
                hits = sum(answers[i] == asked[i] for i in those)
                report.add({f"held out: {' and '.join(pair.values())}, all right": Share(hits, len(those))})
        distance = nearest(thumbnails(painted), training).median().item()
        report.add({f"{label}: distance to nearest training picture": round(distance, 4)})
        sheet = contact_sheet(to_pil(painted[:100]), 10)
        sheet.save(out / f"{label.replace(' ', '-')}.png")
        if full and not held_out:
            report.add(further.distances(judge, painted, seed))
    distance = nearest(thumbnails(drawn), training).median().item()
    report.add({"fresh drawings: distance to nearest training picture": round(distance, 4)})
    if full:
        few = max(2, pictures // 10)
        report.add(further.variety(model, seed, min(few, 10)))
        report.add(further.demos(model, judge, few, seed, out))
        steps = further.over_steps(model, judge, few, seed)
        for scheduler_name, shares in steps.items():
            report.add({f"{scheduler_name}, {n} steps, guidance 7.5: all right": s for n, s in shares.items()})
        guidance = further.over_guidance(model, judge, few, seed)
        for name, shares in guidance.items():
            report.add({f"{name}, guidance {scale}: all right": share for scale, share in shares.items()})
        further.plots(steps, guidance, out)
    report.add({
        "settings": f"{num_inference_steps} steps of {scheduler}, guidance {guidance_scale}",
        "minutes": round((time.monotonic() - started) / 60, 1),
    })  # fmt: skip
    return report.rows


class Report:
    """The table, printed row by row as it grows and kept in a file, so that a run broken off has not been in vain."""

    def __init__(self, file: Path):
        self.file, self.rows = file, dict[str, object]()

    def add(self, rows: Mapping[str, object]) -> None:
        """Print these rows, and write the file anew with all there are."""
        for name, value in rows.items():
            print(f"{name:68} {value}", flush=True)
        self.rows |= rows
        plain = {
            name: {"right": value.right, "count": value.count} if isinstance(value, Share) else value
            for name, value in self.rows.items()
        }
        self.file.write_text(json.dumps(plain, indent=2) + "\n")


@torch.no_grad()
def round_trip(model: LatentDiffusion, x: Tensor) -> Tensor:
    """Pictures through the encoder, as its mean, and back through the decoder."""
    parts = (part.to(model.device) for part in x.split(50))
    return torch.cat([model.vae.decode(model.vae.encode(part).mean).clamp(-1, 1).cpu() for part in parts])


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures in [-1, 1], in dB, one for each."""
    return -10 * torch.log10((x - y).square().mean(dim=(1, 2, 3)) / 4)


@torch.no_grad()
def retrieval(folder: Path, model: LatentDiffusion, scenes: list[Scene], x: Tensor) -> Share:
    """For how many pictures CLIP finds their own full caption (or an equal one) the nearest of all."""
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    texts = [scene.caption() for scene in scenes]
    answer = clip(input_ids=tokenize(model.tokenizer, texts, "cpu")[0], pixel_values=x)
    best = answer.logits_per_image.argmax(1).tolist()
    return Share(sum(texts[j] == texts[i] for i, j in enumerate(best)), len(texts))


def thumbnails_of_training(folder: Path, seed: int, count: int) -> Tensor:
    """The pictures that the model was trained on, small and flat: (count, numbers), in [0, 1]."""
    images = data.pictures(folder / "data", "train", seed, count, THUMB)
    return torch.from_numpy(np.array(images)).float().flatten(1) / 255


def nearest(x: Tensor, training: Tensor) -> Tensor:
    """Root mean square distance of each thumbnail to the nearest training picture; pixels in [0, 1]."""
    return torch.cdist(x, training).amin(dim=1) / math.sqrt(x.shape[1])

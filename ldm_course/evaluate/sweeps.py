"""What `ldm-course evaluate --full` adds: distances between sets, variety, steps, guidance, and the three demos."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course.evaluate.classifier import Classifier, classify
from ldm_course.evaluate.metrics import (
    BATCH,
    Share,
    all_right,
    frechet,
    mean_distance,
    render,
    sample_scenes,
    test_scenes,
)
from ldm_course.images import to_tensor
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import SAMPLERS, img2img, inpaint, txt2img
from ldm_course.scenes import contact_sheet, random_scene

STEPS = (5, 10, 20, 50)
GUIDANCE_SCALES = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0)
DEMO_STEPS = 50
DEMO_STRENGTH = 0.7  # of the image-to-image demo
GUIDANCE_STEPS = (10, 20)  # of dpm++, over the guidance scales
STYLES = ("v:", "o-", "x--", "s-.", "^-")  # of the curves of a plot

Table = dict[str, dict[str, Share]]


@torch.no_grad()
def distances(classifier: Classifier, generated: Tensor, seed: int) -> dict[str, float]:
    """How far the generated images are from rendered ones, as sets, and how far two sets of rendered ones are."""
    count = len(generated)
    sets = (generated, *(render(test_scenes(count, seed + offset, False)) for offset in (1, 2)))
    ours, one, other = (torch.cat([classifier.features(batch) for batch in x.split(100)]) for x in sets)
    return {
        "Frechet distance of classifier features, generated to rendered": round(frechet(ours, one), 2),
        "Frechet distance of classifier features, rendered to rendered": round(frechet(other, one), 2),
    }


def variety(model: LatentDiffusion, seed: int, prompts: int, each: int = 10) -> dict[str, float]:
    """How different images of one prompt are: the mean distance of two of them, generated and rendered."""
    generated, rendered = 0.0, 0.0
    for i, scene in enumerate(tqdm(test_scenes(prompts, seed + 3, False), desc="generating, variety")):
        generated += mean_distance(to_tensor(txt2img(model, [scene.caption()] * each, seed=1000 * i)))
        rng = random.Random(f"variety-{seed}-{i}")
        free = [random_scene(rng, None) for _ in range(each)]  # in all that a caption does not say
        rendered += mean_distance(render([replace(one, **scene.attributes()) for one in free]))
    return {
        "distance between two images of a prompt, generated": round(generated / prompts, 3),
        "distance between two images of a prompt, rendered": round(rendered / prompts, 3),
    }


# ---- steps and guidance -----------------------------------------------------------------------------------------


def sweep_steps(model: LatentDiffusion, classifier: Classifier, count: int, seed: int) -> Table:
    """Share of images with everything right, for each sampler at each number of steps, on the same prompts.

    With the model's own spacing of the timesteps; and dpm++ once more with "trailing" ones.
    """
    rows = {sampler: {"scheduler": sampler} for sampler in SAMPLERS}
    rows["dpm++ trailing"] = {"scheduler": "dpm++", "timestep_spacing": "trailing"}
    return _sweep(model, classifier, count, seed, rows, "num_inference_steps", STEPS)


def sweep_guidance(model: LatentDiffusion, classifier: Classifier, count: int, seed: int) -> Table:
    """The same over guidance scales, with few and with enough steps of DPM-Solver++."""
    rows = {f"dpm++, {n} steps": {"scheduler": "dpm++", "num_inference_steps": n} for n in GUIDANCE_STEPS}
    return _sweep(model, classifier, count, seed, rows, "guidance_scale", GUIDANCE_SCALES)


def _sweep(
    model: LatentDiffusion,
    classifier: Classifier,
    count: int,
    seed: int,
    rows: Mapping[str, Mapping[str, Any]],
    name: str,
    values: Sequence[float],
) -> Table:
    """The share for each row's settings and each value of the argument `name` of `txt2img`."""
    scenes = test_scenes(count, seed + 4, False)
    truth, table = [scene.attributes() for scene in scenes], Table()
    for row, settings in rows.items():
        table[row] = {}
        for value in values:
            images = sample_scenes(model, scenes, seed, {**settings, name: value}, f"{row}, {name} {value:g}")
            table[row][f"{value:g}"] = all_right(classify(classifier, images), truth)
    return table


def plot_sweeps(steps: Table, guidance: Table, out: Path) -> None:
    """Both tables as curves with 95% intervals over equally spaced settings, in out/steps-and-guidance.png."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    tables = {"steps": steps, "guidance scale": guidance}
    for axes, (label, table) in zip(figure.subplots(1, 2, sharey=True), tables.items()):
        for (name, shares), style in zip(table.items(), STYLES):
            values = np.array([share.right / share.count for share in shares.values()])
            low, high = np.array([share.interval() for share in shares.values()]).T
            errors = np.maximum(0, [values - low, high - values])  # rounding may put 1 outside its interval
            axes.errorbar(range(len(shares)), values, errors, fmt=style, capsize=3, label=name)
            axes.set_xticks(range(len(shares)), list(shares))
        axes.set(xlabel=label, ylabel="all five attributes right", ylim=(0, 1.02))
        axes.label_outer()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    figure.savefig(out / "steps-and-guidance.png", dpi=144)


# ---- the three demos --------------------------------------------------------------------------------------------


def demos(model: LatentDiffusion, classifier: Classifier, count: int, seed: int, out: Path) -> dict[str, Share]:
    """The course's three demos over `count` seeds, as the classifier sees them; and sheets of them in `out`."""
    seeds = [10_000 * (seed + 1) + i for i in range(count)]
    dogs = [random_scene(random.Random(f"demo-{seed}-{i}"), None) for i in range(count)]
    plain = [replace(scene, animal="dog", accessory="none") for scene in dogs]

    generated: list[Image.Image] = []
    for i in tqdm(range(0, count, BATCH), desc="demo: a dog with glasses", unit_scale=BATCH):
        prompts = ["a dog with glasses"] * min(BATCH, count - i)
        generated += txt2img(model, prompts, seed=seeds[i], num_inference_steps=DEMO_STEPS)
    contact_sheet(generated[:10], 10).save(out / "demo-txt2img.png")
    glasses = [(found["animal"], found["accessory"]) for found in classify(classifier, to_tensor(generated))]

    before = [scene.render() for scene in plain]
    wishes = [replace(scene, accessory="glasses") for scene in plain]
    settings: dict[str, Any] = {"strength": DEMO_STRENGTH, "num_inference_steps": DEMO_STEPS}
    jobs = zip(tqdm(wishes, desc="demo: glasses for a plain dog"), before, seeds)
    after = [img2img(model, wish.caption(), image, seed=s, **settings) for wish, image, s in jobs]
    contact_sheet(before[:10] + after[:10], min(10, count)).save(out / "demo-img2img.png")
    dressed = all_right(classify(classifier, to_tensor(after)), [wish.attributes() for wish in wishes])

    before = [replace(scene, action="sitting").render() for scene in plain]
    mask = Image.new("L", before[0].size, 0)
    mask.paste(255, (0, mask.height * 9 // 16, mask.width, mask.height))
    settings = {"composite": True, "num_inference_steps": DEMO_STEPS}
    numbered = zip(tqdm(before, desc="demo: a sitting dog runs"), seeds)
    after = [inpaint(model, "a dog running", image, mask, seed=s, **settings) for image, s in numbered]
    contact_sheet(before[:10] + after[:10], min(10, count)).save(out / "demo-inpaint.png")
    running = [(found["animal"], found["action"]) for found in classify(classifier, to_tensor(after))]
    known = to_tensor(mask.convert("RGB"))[0] < 0
    same = sum(torch.equal(to_tensor(a)[0][known], to_tensor(b)[0][known]) for a, b in zip(before, after))
    return {
        "demo: a dog with glasses, from noise": Share(glasses.count(("dog", "glasses")), count),
        f"demo: glasses for a plain dog at strength {DEMO_STRENGTH}, the rest as it was": dressed,
        "demo: a sitting dog's lower half runs": Share(running.count(("dog", "running")), count),
        "demo: and not a pixel above it changes": Share(same, count),
    }

"""What `ldm-course evaluate --full` measures on top: distributions, variety, steps, guidance, and the three demos."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.images import to_tensor
from ldm_course.pipelines import img2img, inpaint, txt2img
from ldm_course.scenes import Scene, contact_sheet, random_scene
from ldm_course.schedulers import SCHEDULERS
from ldm_course.training.judge import Judge, read
from ldm_course.training.score import BATCH, Share, all_right, paint, test_scenes, thumbnails

STEPS = (5, 10, 20, 50)
GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0)
DEMO_STEPS = 50
DEMO_STRENGTH = 0.7  # of the image-to-image demo
STYLES = {"ddpm": ("#999999", ":", "v"), "ddim": ("#0072b2", "-", "o"), "euler": ("#e69f00", "--", "x"),
          "dpm++": ("#d55e00", "-.", "s"), "dpm++ trailing": ("#009e73", "-", "^")}  # fmt: skip
GUIDANCE_STEPS = {10: ("#cc79a7", ":", "D"), 20: STYLES["dpm++"]}  # of dpm++, over the guidance scales

Table = dict[str, dict[str, Share]]


# ---- distributions -----------------------------------------------------------------------------------------------


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features (n, d), as Gaussians (Heusel et al. 2017, eq. 6)."""
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt().sum()  # the trace of (cov_a cov_b)^(1/2)
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()


@torch.no_grad()
def features(judge: Judge, x: Tensor) -> Tensor:
    """The judge's features of pictures (n, 3, 128, 128) in [-1, 1]: (n, 128)."""
    return torch.cat([judge.features(part) for part in x.split(100)])


def distances(judge: Judge, painted: Tensor, seed: int) -> dict[str, float]:
    """How far the painted pictures are from drawn ones, as sets, and how far two sets of drawn ones are."""
    one, other = (drawn(test_scenes(len(painted), seed + offset, False)) for offset in (1, 2))
    one, other, ours = features(judge, one), features(judge, other), features(judge, painted)
    return {
        "Frechet distance of judge features, painted to drawn": round(frechet(ours, one), 2),
        "Frechet distance of judge features, drawn to drawn": round(frechet(other, one), 2),
    }


def drawn(scenes: list[Scene]) -> Tensor:
    return torch.cat([to_tensor(scene.render()) for scene in scenes])


def variety(model: LatentDiffusion, seed: int, prompts: int, each: int = 10) -> dict[str, float]:
    """How different pictures of one prompt are: the mean distance of two of them, painted and drawn."""
    painted, drawings = [], []
    for i, scene in enumerate(tqdm(test_scenes(prompts, seed + 3, False), desc="painting, variety")):
        images = txt2img(model, [scene.caption()] * each, seed=1000 * i)
        painted.append(spread(torch.cat([to_tensor(image) for image in _listed(images)])))
        rng = random.Random(f"variety-{seed}-{i}")
        free = [random_scene(rng, None) for _ in range(each)]  # in all that a caption does not say
        same = [replace(one, **scene.attributes()) for one in free]
        drawings.append(spread(drawn(same)))
    return {
        "distance between two pictures of a prompt, painted": round(sum(painted) / prompts, 3),
        "distance between two pictures of a prompt, drawn": round(sum(drawings) / prompts, 3),
    }


def spread(x: Tensor) -> float:
    """Mean root mean square distance of two pictures, as thumbnails; pixels in [0, 1]."""
    small = thumbnails(x)
    return (torch.pdist(small).mean() / small.shape[1] ** 0.5).item()


# ---- steps and guidance -----------------------------------------------------------------------------------------


def over_steps(model: LatentDiffusion, judge: Judge, count: int, seed: int) -> Table:
    """Share of pictures with everything right, for each scheduler at each number of steps, on the same prompts.

    With the model's own spacing of the timesteps; and dpm++ once more with "trailing" ones.
    """
    scenes = test_scenes(count, seed + 4, False)
    asked = [scene.attributes() for scene in scenes]
    rows: dict[str, dict] = {scheduler: {"scheduler": scheduler} for scheduler in SCHEDULERS}
    rows["dpm++ trailing"] = {"scheduler": "dpm++", "timestep_spacing": "trailing"}
    table: Table = {}
    for name, settings in rows.items():
        table[name] = {}
        for steps in STEPS:
            painted = paint(model, scenes, seed, settings | {"num_inference_steps": steps}, f"{name}, {steps} steps")
            table[name][str(steps)] = all_right(read(judge, painted), asked)
    return table


def over_guidance(model: LatentDiffusion, judge: Judge, count: int, seed: int) -> Table:
    """The same over guidance scales, with few and with enough steps of DPM-Solver++."""
    scenes = test_scenes(count, seed + 4, False)
    asked = [scene.attributes() for scene in scenes]
    table: Table = {}
    for steps in GUIDANCE_STEPS:
        name = f"dpm++, {steps} steps"
        table[name] = {}
        for scale in GUIDANCES:
            settings = {"num_inference_steps": steps, "scheduler": "dpm++", "guidance_scale": scale}
            painted = paint(model, scenes, seed, settings, f"{name}, guidance {scale:g}")
            table[name][f"{scale:g}"] = all_right(read(judge, painted), asked)
    return table


def curve(axes: Axes, shares: dict[str, Share], name: str, style: tuple[str, str, str]) -> None:
    """Shares with their intervals over equally spaced settings."""
    colour, line, marker = style
    values = [share.right / share.count for share in shares.values()]
    bounds = [share.interval() for share in shares.values()]
    below = [max(0.0, v - low) for v, (low, _) in zip(values, bounds)]  # rounding may put 1 outside its interval
    above = [max(0.0, high - v) for v, (_, high) in zip(values, bounds)]
    axes.errorbar(
        range(len(shares)), values, [below, above], None, line, color=colour, marker=marker, capsize=3, label=name
    )
    axes.set_xticks(range(len(shares)), list(shares))
    axes.set_ylim(0, 1.02)
    axes.spines[["top", "right"]].set_visible(False)


def plots(steps: Table, guidance: Table, out: Path) -> None:
    """Both tables as curves, in out/steps-and-guidance.png."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for scheduler, shares in steps.items():
        curve(left, shares, scheduler, STYLES[scheduler])
    left.set(xlabel="steps", ylabel="all five attributes right")
    left.legend(frameon=False, loc="lower right")
    for (name, shares), style in zip(guidance.items(), GUIDANCE_STEPS.values()):
        curve(right, shares, name, style)
    right.set(xlabel="guidance scale")
    right.legend(frameon=False, loc="lower right")
    figure.savefig(out / "steps-and-guidance.png", dpi=144)


# ---- the three demos --------------------------------------------------------------------------------------------


def demos(model: LatentDiffusion, judge: Judge, count: int, seed: int, out: Path) -> dict[str, Share]:
    """The seed's three demos over `count` seeds, by the judge; and sheets of them in `out`."""
    noise_seed = 10_000 * (seed + 1)

    painted = []
    for start in tqdm(range(0, count, BATCH), desc="demo: a dog with glasses", unit_scale=BATCH):
        prompts = ["a dog with glasses"] * min(BATCH, count - start)
        painted += _listed(txt2img(model, prompts, seed=noise_seed + start, num_inference_steps=DEMO_STEPS))
    found = _read(judge, painted)
    glasses = sum((f["animal"], f["accessory"]) == ("dog", "glasses") for f in found)
    contact_sheet(painted[:10], 10).save(out / "demo-txt2img.png")

    dogs = [random_scene(random.Random(f"demo-{seed}-{i}"), None) for i in range(count)]
    plain = [replace(scene, animal="dog", accessory="none") for scene in dogs]
    before = [scene.render() for scene in plain]
    wishes = [replace(scene, accessory="glasses") for scene in plain]
    after: list[Image.Image] = []
    for i, image in enumerate(tqdm(before, desc="demo: glasses for a plain dog")):
        after += _listed(
            img2img(
                model,
                wishes[i].caption(),
                image,
                strength=DEMO_STRENGTH,
                seed=noise_seed + i,
                num_inference_steps=DEMO_STEPS,
            )  # fmt: skip
        )
    dressed = all_right(_read(judge, after), [wish.attributes() for wish in wishes])
    contact_sheet(before[:10] + after[:10], min(10, count)).save(out / "demo-img2img.png")

    sitting = [replace(scene, action="sitting") for scene in plain]
    before = [scene.render() for scene in sitting]
    mask = Image.new("L", before[0].size, 0)
    mask.paste(255, (0, mask.height * 9 // 16, mask.width, mask.height))
    after = []
    for i, image in enumerate(tqdm(before, desc="demo: a sitting dog runs")):
        after += _listed(
            inpaint(
                model,
                "a dog running",
                image,
                mask,
                composite=True,
                seed=noise_seed + i,
                num_inference_steps=DEMO_STEPS,
            )  # fmt: skip
        )
    found = _read(judge, after)
    runs = sum((f["animal"], f["action"]) == ("dog", "running") for f in found)
    kept = sum(not _changed_outside(a, b, mask) for a, b in zip(before, after))
    contact_sheet(before[:10] + after[:10], min(10, count)).save(out / "demo-inpaint.png")

    return {
        "demo: a dog with glasses, from noise": Share(glasses, count),
        f"demo: glasses for a plain dog at strength {DEMO_STRENGTH}, the rest as it was": dressed,
        "demo: a sitting dog's lower half runs": Share(runs, count),
        "demo: and not a pixel above it changes": Share(kept, count),
    }


def _read(judge: Judge, images: list[Image.Image]) -> list[dict[str, str]]:
    return read(judge, torch.cat([to_tensor(image) for image in images]))


def _changed_outside(one: Image.Image, other: Image.Image, mask: Image.Image) -> bool:
    """Whether two pictures differ where the mask is black."""
    outside = to_tensor(mask.convert("RGB")) < 0
    return not torch.equal(to_tensor(one)[outside], to_tensor(other)[outside])


def _listed(images: Image.Image | list[Image.Image]) -> list[Image.Image]:
    return images if isinstance(images, list) else [images]

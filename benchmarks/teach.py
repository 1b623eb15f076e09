"""What a lesson of sleeping elephants teaches the shipped model, and what it costs: one row for each way to teach.

    python benchmarks/teach.py [--rows lesson "no prior" ...] [--images 50] [--seed 0] [--threads 1] [--out FILE]

Each row teaches the eight drawings of notebook teach_it anew and generates images for five kinds of prompt, the same
in all rows: sleeping elephants with all five attributes named; two short prompts; seen combinations; and the held-out
ones but for sleeping elephants. An image is right if a classifier, trained apart, finds all that its prompt names.
Prints a table in Markdown, row by row as measured, with Wilson's 95% intervals and the CPU time of the lesson
(of this process, all its threads, what to keep included). --out appends each row as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

import ldm_course as ldm
from ldm_course.evaluate.metrics import Share, test_scenes
from ldm_course.lab.beyond_teach import world
from ldm_course.lora import ATTENTION, CROSS_ATTENTION, lora_parameters
from ldm_course.model import LatentDiffusion
from ldm_course.scenes import ATTRIBUTES, Scene
from ldm_course.train import teach

SETTINGS = {"scheduler": "ddim", "num_inference_steps": 20, "guidance_scale": 4.0}  # as in the notebooks
LESSON = {
    "steps": 300,
    "rank": 8,
    "target_modules": teach.TARGETS,
    "learning_rate": 1.5e-3,
    "prior": 64,
    "wordings": 8,
}
ROWS: dict[str, dict] = {
    "before": {"steps": 0},
    "lesson": {},
    "no prior": {"prior": 0},
    "one caption for all": {"wordings": 0},
    "100 steps": {"steps": 100},
    "rank 1": {"rank": 1},
    "rank 32": {"rank": 32},
    "attention only": {"target_modules": ATTENTION},
    "cross-attention only": {"target_modules": CROSS_ATTENTION},
}


def taught(model: LatentDiffusion, how: dict, seed: int) -> tuple[LatentDiffusion, float]:
    """The model after a lesson, and the CPU seconds of all of it, encoding and generating included."""
    scenes, start = world.drawings(), time.process_time()
    if not how["steps"]:
        return model, 0.0
    captions = [world.wordings(scene, how["wordings"]) or ["an elephant sleeping"] for scene in scenes]
    new = teach.encode_examples(model, [scene.render() for scene in scenes], captions)
    prompts = teach.small_world_prompts(how["prior"], seed)
    kept = list(teach.generate_examples(model, prompts, seed))
    settings = {key: how[key] for key in ("steps", "rank", "target_modules", "learning_rate")}
    *_, last = teach.teach(model, new, teach.joined(kept) if kept else None, seed=seed, **settings)
    return last.model, time.process_time() - start


def asked(scenes: list[Scene]) -> list[tuple[str, dict[str, str]]]:
    """A full caption of each scene, and all five of its attributes."""
    captions = [s.caption(random.Random(f"teach-{i}"), tuple(ATTRIBUTES)) for i, s in enumerate(scenes)]
    return list(zip(captions, (scene.attributes() for scene in scenes)))


def kinds(count: int) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Prompts, and what an image must show to be right."""
    held_out, seen = test_scenes(20 * count, 0, True), test_scenes(2 * count, 0, False)
    asleep = [scene for scene in held_out if world.ELEPHANT.items() <= scene.attributes().items()]
    others = [scene for scene in held_out if scene not in asleep]
    return {
        "elephants asleep": asked(asleep[:count]),
        "“an elephant that is asleep”": [("an elephant that is asleep", world.ELEPHANT)] * count,
        "“an elephant”, awake": [("an elephant", {"animal": "elephant", "action": "sitting or running"})]
        * (count // 2),
        "seen": asked(seen),
        "held out, others": asked(others[: 2 * count]),
    }


def shows(found: dict[str, str], wanted: dict[str, str]) -> bool:
    return all(found[name] in value.split(" or ") for name, value in wanted.items())


def measured(model: LatentDiffusion, judge: world.Judge, prompts: list[tuple[str, dict[str, str]]]) -> Share:
    right = 0
    for start in range(0, len(prompts), 25):
        captions, wanted = zip(*prompts[start : start + 25])
        found = judge.look(ldm.txt2img(model, list(captions), seed=5000 + start, **SETTINGS))
        right += sum(map(shows, found, wanted))
    return Share(right, len(prompts))


def rows(names: list[str], count: int, seed: int) -> Iterator[dict]:
    model, judge, prompts = ldm.load(device="cpu"), world.Judge(), kinds(count)
    for name in names:
        after, seconds = taught(model, LESSON | ROWS[name], seed)
        values = sum(weight.numel() for weight in lora_parameters(after.unet))
        plain = replace(after, unet=ldm.lora.merge_lora(after.unet))
        found = {kind: measured(plain, judge, some) for kind, some in prompts.items()}
        yield {"lesson": name, "seed": seed, "values": values, "CPU seconds": round(seconds, 1), **found}


def cell(value: object) -> str:
    if not isinstance(value, Share):
        return str(value)
    low, high = value.interval()
    return f"{value.right} of {value.count} ({low:.0%} to {high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--images", type=int, default=50, help="of sleeping elephants; as many or twice of others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for number, row in enumerate(rows(arguments.rows, arguments.images, arguments.seed)):
        if number == 0:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row), flush=True)
        print("| " + " | ".join(map(cell, row.values())) + " |", flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(row, default=asdict) + "\n")


if __name__ == "__main__":
    main()

"""Which combinations a model paints right: those that it was trained on, and the hardest of the held-out ones.

    python benchmarks/combinations.py [--model FOLDER] [--images 200] [--exact] [--second FOLDER]

Prints, for five kinds of prompts, the share of images in which the classifier finds all five attributes, Wilson's
95% interval, and which attributes are wrong. The same prompts and noise for every model. Ten steps of DPM-Solver++
at guidance 4, with the trailing spacing; --exact takes 50 steps of DDIM at 7.5. About two minutes on one core.
--second also asks another classifier, trained in that folder first (second_classifier.py, a quarter of an hour).
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from second_classifier import second_classifier

import ldm_course as ldm
from ldm_course.evaluate.classifier import classify, load_classifier
from ldm_course.evaluate.metrics import all_right, sample_scenes, test_scenes
from ldm_course.scenes import Scene, random_scene

QUICK: dict[str, Any] = {
    "scheduler": "dpm++", "num_inference_steps": 10, "guidance_scale": 4.0, "timestep_spacing": "trailing"
}  # fmt: skip
EXACT: dict[str, Any] = {"scheduler": "ddim", "num_inference_steps": 50, "guidance_scale": 7.5}


def scenes_with(name: str, count: int, **fixed: Any) -> list[Scene]:
    """Scenes at random with the fixed values."""
    return [replace(random_scene(random.Random(f"pair-{name}-{i}"), held_out=None), **fixed) for i in range(count)]


def sleeps(scene: Scene) -> bool:
    return scene.animal == "elephant" and scene.action == "sleeping"


def kinds(count: int) -> dict[str, list[Scene]]:
    """The five kinds of prompts."""
    asleep = scenes_with("es", count // 2, animal="elephant", action="sleeping")
    crowned = scenes_with("ec", count // 2, animal="elephant", accessory="crown")
    return {
        "dog + glasses": scenes_with("dg", count, animal="dog", accessory="glasses"),
        "elephant + sleeping": [replace(s, accessory=None) if s.accessory == "crown" else s for s in asleep],
        "elephant + crown, awake": [replace(s, action="running") if sleeps(s) else s for s in crowned],
        "held out, no sleeping elephants": [s for s in test_scenes(3 * count, 3, True) if not sleeps(s)][:count],
        "seen": test_scenes(count, 3, False),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ldm.bundled_path(), help="in diffusers' format")
    parser.add_argument("--images", type=int, default=200, help="of the larger kinds; half for two of them")
    parser.add_argument("--exact", action="store_true", help="50 steps of DDIM at guidance 7.5")
    parser.add_argument("--second", type=Path, help="a folder for a second classifier of another architecture")
    args = parser.parse_args()
    model = ldm.load(args.model)
    classifiers: dict[str, Any] = {"": load_classifier(ldm.bundled_path())}
    if args.second:
        classifiers["  by the second"] = second_classifier(args.second)
    for name, scenes in kinds(args.images).items():
        made = sample_scenes(model, scenes, 3, EXACT if args.exact else QUICK, name)
        truth = [scene.attributes() for scene in scenes]
        for by, classifier in classifiers.items():
            found = classify(classifier, made)
            wrong = Counter(k for one, true in zip(found, truth) for k in true if one[k] != true[k])
            print(f"{by or name:32} {all_right(found, truth)}  wrong: {dict(wrong)}", flush=True)


if __name__ == "__main__":
    main()

"""Write a contact sheet: python -m ldm_course.scenes -o sheet.png --seed 0 --rows 8 --columns 12."""

from __future__ import annotations

import argparse
import random

from .scene import random_scene
from .sheet import attribute_scenes, contact_sheet


def main(arguments: list[str] | None = None) -> None:
    """Read the command line (`arguments`, or the process's own) and write the sheet."""
    parser = argparse.ArgumentParser(prog="python -m ldm_course.scenes", description="Write a contact sheet.")
    parser.add_argument("-o", "--output", default="scenes.png", help="the PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--size", type=int, default=128, help="pixels of one picture")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--held-out", action="store_true", help="only combinations kept from training")
    which.add_argument("--all-values", action="store_true", help="every value of every attribute, in order")
    args = parser.parse_args(arguments)
    if args.all_values:
        scenes, columns = attribute_scenes(), 6
    else:
        rng, columns = random.Random(args.seed), args.columns
        scenes = [random_scene(rng, args.held_out) for _ in range(args.rows * columns)]
    contact_sheet([scene.render(args.size) for scene in scenes], columns).save(args.output)


if __name__ == "__main__":
    main()

"""From a cold start to a loaded model, and to a first image: ours against diffusers', taking turns.

    python benchmarks/start_up.py [--rounds 7]

Each time is that of a new Python process, with the files in the system's cache. Loading is timed to the moment when
the model is there, all else to the end of the process, which takes Python half a second after torch. The images are
of the shipped model on the CPU, 20 steps of DDIM with guidance, written as a PNG; ours by the command line. Prints
the medians in seconds, and ours as a share of diffusers'; also the time to import what both stand on, and that of
`ldm-course --help`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from timing import seconds
from tqdm import trange

import ldm_course as ldm

THEIRS = f"""
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(ldm.bundled_path())!r})
"""
THEIR_IMAGE = """
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
noise = torch.Generator("cpu").manual_seed(1)
pipe("a dog with glasses", num_inference_steps=20, generator=noise).images[0].save("theirs.png")
"""
OURS = "import ldm_course as ldm\nmodel = ldm.load(device='cpu')"
NO_END = "\nimport os; os._exit(0)"
COMMAND = [sys.executable, "-m", "ldm_course.cli"]
IMAGE = [*COMMAND, "txt2img", "a dog with glasses", "--num-inference-steps", "20", "--seed", "1", "--device", "cpu"]
IMAGE += ["-o", "ours.png"]
PROCESSES: dict[str, list[str]] = {
    "diffusers: import and load": [sys.executable, "-c", THEIRS + NO_END],
    "ours: import and load": [sys.executable, "-c", OURS + NO_END],
    "diffusers: to an image": [sys.executable, "-c", THEIRS + THEIR_IMAGE],
    "ours: to an image": IMAGE,
    "import torch": [sys.executable, "-c", "import torch"],
    "import CLIPTextModel and CLIPTokenizer": [
        sys.executable,
        "-c",
        "from transformers import CLIPTextModel, CLIPTokenizer",
    ],
    "ldm-course --help": [*COMMAND, "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in PROCESSES}
    with tempfile.TemporaryDirectory() as folder:
        run = partial(subprocess.run, cwd=folder, check=True, capture_output=True)
        for lap in trange(rounds + 1, desc="rounds", leave=False):
            for name, command in PROCESSES.items():
                spent = seconds(partial(run, command))
                if lap:  # the first brings the files into the cache
                    times[name].append(spent)
        assert all((Path(folder) / name).is_file() for name in ("ours.png", "theirs.png"))

    medians = {name: statistics.median(spent) for name, spent in times.items()}
    for name, median in medians.items():
        theirs = medians.get(name.replace("ours", "diffusers"))
        share = f"  {median / theirs:.2f} of diffusers'" if name.startswith("ours") and theirs else ""
        print(f"{name:40}{median:6.2f} s{share}")


if __name__ == "__main__":
    main()

"""How the time for an image grows with steps, images per call, and size: measured, fitted and plotted.

    python benchmarks/scaling.py [--rounds 5] [--out docs/pictures/scaling.png]

On the shipped model, float32, on the CPU. Each line is fitted: time = start + slope * n over steps and images, and
time of a UNet call = a + b n + c n^2 over n, the number of latent positions, where c n^2 is self-attention's share.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from timing import median
from tqdm.auto import tqdm

import ldm_course as ldm

STEPS = (1, 5, 10, 20, 50)
IMAGES = (1, 2, 4, 8, 16)
SIDES = (64, 128, 192, 256, 384, 512)  # pixels
CALL_SIDES = (*SIDES, 768, 1024)  # for one UNet call: large enough to see the quadratic part
PROMPT, COLOUR = "a dog with glasses", "#0072b2"


@torch.no_grad()
def measure(rounds: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """Seconds over steps, over images, over size; and of one UNet call over size."""
    model = ldm.load(device="cpu")
    bar = tqdm(total=len(STEPS) + len(IMAGES) + len(SIDES) + len(CALL_SIDES), desc="measuring")

    def seconds(prompts: str | list[str], steps: int, side: int) -> float:
        options = {"num_inference_steps": steps, "height": side, "width": side, "seed": 0}
        bar.update()
        return median(lambda: ldm.txt2img(model, prompts, **options), rounds)

    over_steps = [seconds(PROMPT, n, 128) for n in STEPS]
    over_images = [seconds([PROMPT] * n, 10, 128) for n in IMAGES]
    over_sides = [seconds(PROMPT, 10, side) for side in SIDES]
    calls, t = [], torch.tensor([500])
    context = model.embed(["", PROMPT])
    for side in CALL_SIDES:
        x = torch.randn(1, 4, side // 8, side // 8).expand(2, -1, -1, -1)
        calls.append(median(lambda x=x: model.unet(x, t, context), 3 * rounds))
        bar.update()
    bar.close()
    return over_steps, over_images, over_sides, calls


def fit(x: np.ndarray, seconds: list[float], powers: tuple[int, ...]) -> np.ndarray:
    """Coefficients >= 0 of the smallest relative error, over all subsets of the powers."""
    y = np.array(seconds)
    best, least = np.zeros(len(powers)), np.inf
    for chosen in range(1, 2 ** len(powers)):
        used = [i for i in range(len(powers)) if chosen >> i & 1]
        terms = np.stack([x ** powers[i] for i in used], axis=1) / y[:, None]
        answer, *_ = np.linalg.lstsq(terms, np.ones(len(y)), rcond=None)
        error = np.square(terms @ answer - 1).sum()
        if (answer >= 0).all() and error < least:
            best, least = np.zeros(len(powers)), error
            best[used] = answer
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/scaling.png"))
    options = parser.parse_args()
    over_steps, over_images, over_sides, calls = measure(options.rounds)
    n = (np.array(CALL_SIDES) / 8) ** 2
    steps = fit(np.array(STEPS), over_steps, (0, 1))
    images = fit(np.array(IMAGES), over_images, (0, 1))
    unet = fit(n, calls, (0, 1, 2))
    for title, xs, seconds in (
        ("steps", STEPS, over_steps), ("images, 10 steps", IMAGES, over_images),
        ("pixels a side, 10 steps", SIDES, over_sides), ("pixels a side, one UNet call", CALL_SIDES, calls),
    ):  # fmt: skip
        print(f"{title}: " + ", ".join(f"{x}: {1000 * s:.0f} ms" for x, s in zip(xs, seconds)))
    print(f"steps: {1000 * steps[0]:.0f} ms + {1000 * steps[1]:.1f} ms a step")
    print(f"images: {1000 * images[0]:.0f} ms + {1000 * images[1]:.0f} ms an image, 10 steps")
    share = unet[2] * n**2 / (unet[0] + unet[1] * n + unet[2] * n**2)
    print(
        f"UNet call: {1000 * unet[0]:.1f} ms + {1e6 * unet[1]:.1f} us n + {1e9 * unet[2]:.2f} ns n^2; quadratic share"
    )
    print("  " + ", ".join(f"{side} px: {part:.0%}" for side, part in zip(CALL_SIDES, share)))

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, xs, seconds, line, label in (
        (left, np.array(STEPS), over_steps, steps, "steps"),
        (middle, np.array(IMAGES), over_images, images, "images per call, 10 steps"),
    ):
        axes.plot(xs, seconds, "o", color=COLOUR)
        axes.plot(xs, line[0] + line[1] * xs, color=COLOUR, lw=1)
        axes.set(xlabel=label, ylabel="seconds", ylim=(0, None))
    right.loglog(CALL_SIDES, calls, "o", color=COLOUR, label="one UNet call")
    fine = np.geomspace(n[0], n[-1], 100)
    side = 8 * np.sqrt(fine)
    right.loglog(side, unet[0] + unet[1] * fine + unet[2] * fine**2, color=COLOUR, lw=1, label="fit")
    right.loglog(side, unet[2] * fine**2, color="#d55e00", ls="--", lw=1, label="its quadratic part")
    right.set(xlabel="pixels a side", ylabel="seconds", ylim=(calls[0] / 30, None))
    ticks = [side for side in CALL_SIDES if side.bit_count() == 1]  # powers of two
    right.set_xticks(ticks, [str(side) for side in ticks])
    right.minorticks_off()
    right.legend(frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=144)


if __name__ == "__main__":
    main()

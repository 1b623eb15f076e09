"""Notebook 05: image-to-image under a slider, what noise strength does to a picture, and pictures from anywhere."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.errors import InputError
from ldm_course.images import load_image, to_tensor
from ldm_course.lab import live, plots
from ldm_course.lab.measure import interval
from ldm_course.lab.prepared import GUIDANCE, Prepared
from ldm_course.pipelines import img2img, strength_timesteps
from ldm_course.sampling import denoise
from ldm_course.scenes import Scene
from ldm_course.training.judge import Judge, read

DRAG_STEPS = 8  # of DPM-Solver++, so that a picture follows the slider

# ---- the slider ------------------------------------------------------------------------------------------------


class Repainter(Prepared):
    """Repaints its picture at any strength."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int = DRAG_STEPS):
        """The number of steps is that at strength 1."""
        super().__init__(model, image, num_inference_steps)

    def start(self, strength: float, seed: int) -> tuple[Tensor, list[int]]:
        """The noisy latent at this strength, and the timesteps from there."""
        timesteps = strength_timesteps(self.timesteps, strength)
        return (
            self.model.schedule.add_noise(self.z, self.noise(seed), timesteps[0]) if timesteps else self.z
        ), timesteps

    def __call__(self, prompt: str, strength: float, seed: int) -> Iterator[tuple[Image.Image, Image.Image] | None]:
        """Repaint: yields None between steps, and at the end the noisy start, decoded, and the result."""
        x, timesteps = self.start(strength, seed)
        noisy = plots.decoded(self.model, x)
        yield None
        for state in denoise(
            self.model,
            x,
            self.context(prompt),
            timesteps,
            negative_context=self.context(""),
            guidance_scale=GUIDANCE,
            scheduler="dpm++",
        ):
            x = state.x_t
            yield None
        yield noisy, plots.decoded(self.model, x)


def studio(repainter: Repainter, prompt: str) -> ipywidgets.VBox:
    """A strength slider whose picture follows while it is dragged; prompt and seed beside it."""
    layout = {"width": "520px"}
    controls: dict[str, ipywidgets.Widget] = {
        "strength": ipywidgets.FloatSlider(
            value=0.6, min=0, max=1, step=1 / len(repainter.timesteps), readout_format=".2f", description="strength",
            layout=layout,
        ),
        "prompt": ipywidgets.Text(value=prompt, continuous_update=False, description="prompt", layout=layout),
        "seed": ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed", layout={"width": "180px"}),
    }  # fmt: skip
    image = ipywidgets.Image(format="jpeg", layout={"max_width": "100%", "width": "592px"})

    def work(values: dict[str, Any]) -> Generator[None, None, None]:
        for drawn in repainter(**values):
            if drawn is not None:
                row = plots.grid([[repainter.image, *drawn]], ["picture", "noisy start", "result"])
                image.value = plots.jpeg(row)
            yield

    box = ipywidgets.VBox([*controls.values(), image])
    box.newest = live.follow(controls, work)  # to see how much work was done, and how much given up
    return box


# ---- the claim -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of n pictures at each of s strengths: (s, n) each.

    distance: to the input, root mean square, the range of a pixel being 1.
    asked: 1 where the judge sees what the prompt asked for.
    kept: the share of the attributes that the prompt left open and that are still the input's.
    """

    distance: Tensor
    asked: Tensor
    kept: Tensor


def outcomes(
    model: LatentDiffusion,
    judge: Judge,
    scenes: Sequence[Scene],
    strengths: Sequence[float],
    num_inference_steps: int = 20,
) -> Outcome:
    """Repaint scenes after "a ... with glasses", picture i from seed i, and measure what comes out."""
    side = model.unet.config.sample_size * model.vae.downscale
    images = [scene.render(side) for scene in scenes]
    prompts = [f"a {scene.animal} with glasses" for scene in scenes]
    before = torch.cat([to_tensor(image) for image in images])
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for strength in strengths:
        painted = img2img(
            model, prompts, images, strength=strength, seed=0, num_inference_steps=num_inference_steps,
            scheduler="dpm++",
        )  # fmt: skip
        assert isinstance(painted, list)
        after = torch.cat([to_tensor(image) for image in painted])
        seen = read(judge, after)
        asked = [float((s["animal"], s["accessory"]) == (scene.animal, "glasses")) for s, scene in zip(seen, scenes)]
        kept = [
            np.mean([s[name] == getattr(scene, name) for name in ("colour", "action", "place")])
            for s, scene in zip(seen, scenes)
        ]
        distance = (after - before).square().mean(dim=(1, 2, 3)).sqrt() / 2
        rows.append((distance, torch.tensor(asked), torch.tensor(kept, dtype=torch.float32)))
    return Outcome(*(torch.stack(column) for column in zip(*rows)))


def freedom(strengths: Sequence[float], outcome: Outcome) -> Figure:
    """Strength against what became of the picture: means with 95% intervals."""
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, name, colour, style in (
        (left, outcome.distance, "distance to the input", plots.INK, "o-"),
        (right, outcome.asked, "the glasses are there", plots.ORANGE, "s--"),
        (right, outcome.kept, "colour, action, place kept", plots.BLUE, "o-"),
    ):
        middle, half = interval(values)
        axes.errorbar(strengths, middle, half, fmt=style, color=colour, markersize=4, capsize=2, label=name)
        axes.set(xlabel="strength", xticks=np.linspace(0, 1, 6))
        axes.spines[["top", "right"]].set_visible(False)
    left.set(ylabel="distance to the input", ylim=(0, None))
    right.set(ylabel="share", ylim=(-0.03, 1.03))
    right.legend(frameon=False, fontsize=9, loc="center left")
    return figure


# ---- pictures from anywhere ------------------------------------------------------------------------------------


def uploaded(upload: ipywidgets.FileUpload, otherwise: Image.Image) -> Image.Image:
    """The picture last chosen in an upload button, turned upright; the other one while nothing has been chosen.

    Raises:
        InputError: if the file is no picture.
    """
    files = upload.value
    if not files:
        return otherwise
    last = list(files.values())[-1] if isinstance(files, dict) else files[-1]  # ipywidgets 7 and 8
    try:
        return load_image(io.BytesIO(bytes(last["content"])))
    except InputError:
        raise InputError("The chosen file is not a picture that can be read.") from None

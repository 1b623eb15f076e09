"""The widget of notebook 03: from noise to the islands, with any number of steps."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ipywidgets
import torch
from PIL import Image

from ldm_course.lab.nb03_groupnorm import toy
from ldm_course.lab.nb03_groupnorm.figures import board, destinies
from ldm_course.lab.shared.live import follow
from ldm_course.lab.shared.plots import png
from ldm_course.pipelines import SAMPLERS
from ldm_course.schedule import NoiseSchedule

DOTS = 50


def page(schedule: NoiseSchedule, sampler: str, steps: int, done: int, side: int = 560) -> tuple[Image.Image, str]:
    """The dots after `done` of the steps, with the ways they came and arrows to their x0_hat; and that in words."""
    points, which = toy.islands()
    generator = torch.Generator("cpu").manual_seed(1)

    def noise() -> torch.Tensor:
        return torch.randn(DOTS, 2, generator=generator, dtype=torch.float32, device="cpu")

    states = toy.walk(SAMPLERS[sampler], noise(), schedule.timesteps(steps, "trailing"), schedule, points, noise)
    colours = destinies(states[-1].x_t, points, which)
    now = states[min(done, steps)]
    lines = torch.stack([state.x_t for state in states[: done + 1]])
    image = board(points, now.x_t, colours, lines, now.x0_hat if now.t >= 0 else None, side, radius=4)
    if now.t < 0:
        return image, f"The end: {steps} step{'s' * (steps > 1)} of {sampler}."
    return image, f"t = {now.t}. The arrows point from x_t to x0_hat."


def explorer(schedule: NoiseSchedule) -> ipywidgets.VBox:
    """Drag through a walk; choose its sampler and its number of steps."""
    sampler = ipywidgets.Dropdown(options=["ddim", "ddpm", "dpm++"], description="sampler")
    steps = ipywidgets.IntSlider(value=20, min=1, max=50, description="steps")
    done = ipywidgets.IntSlider(value=6, min=0, max=20, description="done")
    play = ipywidgets.Play(value=6, min=0, max=20, interval=200)
    ipywidgets.jslink((play, "value"), (done, "value"))
    image = ipywidgets.Image(format="png", layout={"width": "420px", "max_width": "100%"})
    note = ipywidgets.Label()

    def fewer(change: dict) -> None:
        done.max = play.max = change["new"]

    steps.observe(fewer, names="value")

    def work(values: dict[str, Any]) -> Generator:
        yield
        drawing, words = page(schedule, values["sampler"], values["steps"], min(values["done"], values["steps"]))
        image.value, note.value = png(drawing), words

    follow({"sampler": sampler, "steps": steps, "done": done}, work, note)
    return ipywidgets.VBox([ipywidgets.HBox([sampler, steps]), ipywidgets.HBox([play, done]), note, image])

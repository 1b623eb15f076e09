"""The widgets of notebook 03: from noise to the islands, with any number of steps, and from any place."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import ipywidgets
import torch
from PIL import Image

from ldm_course.lab.nb03_groupnorm import toy
from ldm_course.lab.nb03_groupnorm.figures import REACH, board, destinies
from ldm_course.lab.shared.live import follow
from ldm_course.lab.shared.pad import PointPad
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


Way = Callable[[float, float, int], torch.Tensor]  # (x, y, steps) -> the points that are passed, (steps + 1, 1, 2)


def one_way(way: Way, x: float, y: float, steps: int, side: int = 400) -> Image.Image:
    """The way home of one dot that starts at (x, y)."""
    points, which = toy.islands()
    path = way(x, y, steps)
    return board(points, path[-1], destinies(path[-1], points, which), path, side=side, radius=6)


def own_dot(way: Way) -> ipywidgets.VBox:
    """Drag a dot of noise over the islands, by the mouse or two sliders, and see its way home beside them."""
    x, y = (
        ipywidgets.FloatSlider(value=value, min=-REACH, max=REACH, step=0.05, description=name)
        for name, value in (("x", -1.8), ("y", 1.8))
    )
    steps = ipywidgets.IntSlider(value=20, min=1, max=50, description="steps")
    points, _ = toy.islands()
    pad, note = PointPad(board(points, side=400), REACH), ipywidgets.Label()
    image = ipywidgets.Image(format="png", layout={"width": "320px", "height": "320px"})

    def dragged(change: object) -> None:
        x.value, y.value = pad.point

    def work(values: dict[str, Any]) -> Generator:
        yield
        pad.put(values["x"], values["y"])
        image.value = png(one_way(way, values["x"], values["y"], values["steps"]))

    pad.observe(dragged, names="point")
    follow({"x": x, "y": y, "steps": steps}, work, note)
    return ipywidgets.VBox([ipywidgets.HBox([pad, image]), x, y, steps, note])

"""The widget of notebook 02: tell the network anything about a noisy scene, and see what it believes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from ldm_course.lab.shared.live import follow
from ldm_course.lab.shared.plots import decoded, grid, jpeg
from ldm_course.model import LatentDiffusion

TITLES = ("what it sees", "what it believes")


@torch.no_grad()
def believed(model: LatentDiffusion, x0: Tensor, eps: Tensor, caption: str, t: int, told: int) -> Image.Image:
    """x_t decoded, and the guess of x_0 by a UNet that is told this caption and the timestep `told`."""
    x_t = model.schedule.add_noise(x0, eps, t)
    prediction = model.unet(x_t.to(model.dtype), told, model.embed([caption])).float()
    x0_hat, _ = model.schedule.x0_and_eps(prediction, x_t, t)
    return grid([[decoded(model, x_t), decoded(model, x0_hat)]], TITLES)


def liar(model: LatentDiffusion, x0: Tensor, eps: Tensor, caption: str, t: int = 500) -> ipywidgets.VBox:
    """Type a caption, drag the noise, and lie about t; the images follow."""
    largest = model.schedule.num_train_timesteps - 1
    words = ipywidgets.Text(value=caption, description="caption", layout={"width": "520px"})
    level = ipywidgets.IntSlider(value=t, min=0, max=largest, description="t", layout={"width": "520px"})
    off = ipywidgets.IntSlider(value=0, min=-400, max=400, description="lie about t", layout={"width": "520px"})
    image = ipywidgets.Image(format="jpeg", layout={"width": "528px", "max_width": "100%"})
    note = ipywidgets.Label()

    def work(values: dict[str, Any]) -> Generator:
        yield
        told = min(max(values["t"] + values["off"], 0), largest)
        image.value = jpeg(believed(model, x0, eps, values["words"], values["t"], told))
        note.value = f"t = {values['t']}, and it is told t = {told}."

    follow({"words": words, "t": level, "off": off}, work, note)
    return ipywidgets.VBox([words, level, off, note, image])

"""Notebook 04: what guidance buys and costs, and a studio whose picture follows the prompt and every setting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Sequence
from statistics import mean
from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.lab import live, plots
from ldm_course.lab.measure import interval
from ldm_course.lab.prepared import GUIDANCE, Reader
from ldm_course.sampling import denoise, draw_noise
from ldm_course.schedulers import SCHEDULERS
from ldm_course.training.score import Share

STEPS = 12  # of DPM-Solver++, to begin with
GLIMPSE = 3  # every so many steps the guess is shown
SUGGESTIONS = (
    "a dog with glasses",
    "a white cat with a hat in the snow",
    "a blue elephant running on the beach",
    "a pink pig with a crown sleeping in the forest",
    "an orange rabbit with headphones in the forest",
    "a black bear with a scarf in the city",
)

# ---- the studio ------------------------------------------------------------------------------------------------


class Painter(Reader):
    """Paints what a prompt says, and shows the guess on the way."""

    def __init__(self, model: LatentDiffusion):
        super().__init__(model)
        self._remarks: dict[str, str] = {}

    def context(self, prompt: str) -> Tensor:
        """As a Reader's, but what is to be said of the prompt is kept for `remark`."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            context = super().context(prompt)
        self._remarks.setdefault(prompt, " ".join(str(warning.message) for warning in caught))
        return context

    def remark(self, prompt: str) -> str:
        """What is to be said of a prompt: words that the model cannot know, or too many of them; empty if nothing."""
        self.context(prompt)
        return self._remarks[prompt]

    def __call__(
        self, prompt: str, seed: int, steps: int, scheduler: str, guidance: float
    ) -> Generator[Image.Image | None, None, None]:
        """As `ldm.txt2img`: yields the decoded guess at some steps, None at others, and the picture at last."""
        unet = self.model.unet.config
        generator = torch.Generator().manual_seed(seed)
        x_T = draw_noise((1, unet.in_channels, unet.sample_size, unet.sample_size), generator)
        states = denoise(
            self.model,
            x_T,
            self.context(prompt),
            self.model.schedule.timesteps(steps),
            negative_context=self.context(""),
            guidance_scale=guidance,
            scheduler=scheduler,
            generator=generator,
        )
        for i, state in enumerate(states):
            shown = state.t == -1 or i % GLIMPSE == GLIMPSE - 1
            yield plots.decoded(self.model, state.x0_hat) if shown else None

    def picture(self, prompt: str, seed: int, steps: int, scheduler: str, guidance: float) -> Image.Image:
        """The finished picture."""
        *_, picture = self(prompt, seed, steps, scheduler, guidance)
        assert picture is not None
        return picture


def studio(painter: Painter, prompt: str) -> ipywidgets.HBox:
    """A prompt with suggestions, seed, steps, scheduler and guidance: each change paints the picture anew."""
    layout = {"width": "420px"}
    controls: dict[str, ipywidgets.Widget] = {
        "prompt": ipywidgets.Combobox(
            value=prompt, options=SUGGESTIONS, continuous_update=False, description="prompt", layout=layout
        ),
        "seed": ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed", layout={"width": "180px"}),
        "steps": ipywidgets.IntSlider(value=STEPS, min=1, max=50, description="steps", layout=layout),
        "scheduler": ipywidgets.ToggleButtons(  # JupyterLab takes a list's keys for commands of its own
            options=sorted(SCHEDULERS),
            value="dpm++",
            description="scheduler",
            style={"button_width": "76px"},
            layout=layout,
        ),
        "guidance": ipywidgets.FloatSlider(
            value=GUIDANCE, min=0, max=15, step=0.5, description="guidance", layout=layout
        ),
    }
    another = ipywidgets.Button(description="next seed", layout={"width": "100px"})
    note = ipywidgets.Label()
    image = ipywidgets.Image(format="jpeg", layout={"width": f"{plots.SIDE}px", "height": f"{plots.SIDE}px"})

    def work(values: dict[str, Any]) -> Generator[None, None, None]:
        started, remark = time.monotonic(), painter.remark(values["prompt"])
        for picture in painter(**values):
            if picture is not None:
                image.value = plots.jpeg(picture.resize((plots.SIDE, plots.SIDE), Image.Resampling.LANCZOS))
                note.value = f"{time.monotonic() - started:.1f} s. {remark}"
            yield

    def next_seed(_: Any) -> None:
        controls["seed"].value += 1

    another.on_click(next_seed)
    prompt_box, seed, *others = controls.values()
    sides = [prompt_box, ipywidgets.HBox([seed, another]), *others, note]
    box = ipywidgets.HBox([ipywidgets.VBox(sides), image], layout={"flex_flow": "row wrap"})
    box.newest = live.follow(controls, work, note)  # to see how much work was done, and how much given up
    return box


# ---- what guidance buys and costs ------------------------------------------------------------------------------


def spread(x: Tensor) -> Tensor:
    """How far each of n pictures (n, 3, h, w) in [-1, 1] is from their mean: (n,), the range of a pixel being 1."""
    return (x - x.mean(dim=0)).square().mean(dim=(1, 2, 3)).sqrt() / 2


def differing(seen: Sequence[dict[str, str]], names: Sequence[str]) -> Tensor:
    """For each of n pictures the share of the others that differ from it, mean over the attributes named: (n,)."""
    rows = [[mean([one[name] != other[name] for name in names]) for other in seen] for one in seen]
    return torch.tensor(rows).sum(dim=1) / (len(seen) - 1)


def bought(scales: Sequence[float], right: Sequence[Share], differ: Tensor) -> Figure:
    """Guidance scale against the share of pictures that are right, and against how often they differ, (scales, n)."""
    figure = Figure(figsize=(9, 3.0), layout="constrained")
    left, side = figure.subplots(1, 2)
    shares = torch.tensor([share.right / share.count for share in right])
    ends = torch.tensor([share.interval() for share in right]).T  # (2, scales)
    middle, half = interval(differ)
    for axes, values, error, label, colour in (
        (left, shares, (ends - shares).abs(), "share of pictures that are right", plots.ORANGE),
        (side, middle, half, "share of pairs that differ", plots.BLUE),
    ):
        axes.errorbar(scales, values.numpy(), error.numpy(), fmt="o-", color=colour, markersize=4, capsize=2)
        axes.set(xlabel="guidance scale s", ylabel=label, ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    return figure

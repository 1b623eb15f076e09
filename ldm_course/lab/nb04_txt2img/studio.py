"""The studio of notebook 04: an image that follows the prompt and every setting of the sampler."""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator
from typing import Any

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from ldm_course.lab.shared import live, plots
from ldm_course.lab.shared.prepared import GUIDANCE, SEED, STEPS, PromptCache
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import SAMPLERS
from ldm_course.sampling import denoise, draw_noise

PREVIEW_EVERY = 3  # steps between two previews of the result
SUGGESTIONS = (
    "a dog with glasses",
    "a white cat with a hat in the snow",
    "a blue elephant running on the beach",
    "a pink pig with a crown sleeping in the forest",
    "an orange rabbit with headphones in the forest",
    "a black bear with a scarf in the city",
)


class Sampler(PromptCache):
    """Samples images as `ldm.txt2img` does, with previews of x0_hat, and keeps the warnings about each prompt."""

    def __init__(self, model: LatentDiffusion):
        super().__init__(model)
        self._warnings: dict[str, str] = {}

    def context(self, prompt: str) -> Tensor:
        """The prompt's vectors, (1, 77, d). Warnings are not shown; `warning` returns them."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            context = super().context(prompt)
        self._warnings.setdefault(prompt, " ".join(str(warning.message) for warning in caught))
        return context

    def warning(self, prompt: str) -> str:
        """The warning about words that the model does not know, or about a prompt that is too long; may be empty."""
        self.context(prompt)
        return self._warnings[prompt]

    def __call__(
        self, prompt: str, seed: int, steps: int, scheduler: str, guidance: float
    ) -> Generator[Image.Image | None, None, None]:
        """Yield once per step: a preview at some steps, None at the others, and the finished image at the end."""
        size = self.model.native_latent_size
        generator = torch.Generator("cpu").manual_seed(seed)
        x_T = draw_noise((1, self.model.vae.config.latent_channels, size, size), generator)
        states = denoise(
            self.model,
            x_T,
            self.context(prompt),
            self.model.schedule.timesteps(steps),
            negative_context=self.context(""),
            guidance_scale=guidance,
            step=SAMPLERS[scheduler],
            generator=generator,
        )
        for i, state in enumerate(states):
            shown = state.t == -1 or i % PREVIEW_EVERY == PREVIEW_EVERY - 1
            yield plots.decoded(self.model, state.x0_hat) if shown else None

    def image(self, prompt: str, seed: int, steps: int, scheduler: str, guidance: float) -> Image.Image:
        """The finished image."""
        return [image for image in self(prompt, seed, steps, scheduler, guidance) if image][-1]


def panel(sampler: Sampler, prompt: str) -> ipywidgets.HBox:
    """Prompt with suggestions, seed, steps, scheduler and guidance; each change samples a new image."""
    layout = {"width": "420px"}
    controls: dict[str, ipywidgets.Widget] = {
        "prompt": ipywidgets.Combobox(
            value=prompt, options=SUGGESTIONS, continuous_update=False, description="prompt", layout=layout
        ),
        "seed": ipywidgets.BoundedIntText(value=SEED, min=0, max=9999, description="seed", layout={"width": "180px"}),
        "steps": ipywidgets.IntSlider(value=STEPS, min=1, max=50, description="steps", layout=layout),
        "scheduler": ipywidgets.ToggleButtons(  # JupyterLab takes a list's keys for commands of its own
            options=sorted(SAMPLERS),
            value="ddim",
            description="scheduler",
            style={"button_width": "76px"},
            layout=layout,
        ),
        "guidance": ipywidgets.FloatSlider(
            value=GUIDANCE, min=0, max=15, step=0.5, description="guidance", layout=layout
        ),
    }
    next_seed = ipywidgets.Button(description="next seed", layout={"width": "100px"})
    note = ipywidgets.Label()
    image = ipywidgets.Image(format="jpeg", layout={"width": f"{plots.SIDE}px", "height": f"{plots.SIDE}px"})

    def work(values: dict[str, Any]) -> Generator[None, None, None]:
        started, warning = time.monotonic(), sampler.warning(values["prompt"])
        for sampled in sampler(**values):
            if sampled is not None:
                image.value = plots.jpeg(sampled.resize((plots.SIDE, plots.SIDE), Image.Resampling.LANCZOS))
                note.value = f"{time.monotonic() - started:.1f} s. {warning}"
            yield

    def advance(_: ipywidgets.Button) -> None:
        controls["seed"].value += 1

    next_seed.on_click(advance)
    prompt_box, seed, *others = controls.values()
    settings = ipywidgets.VBox([prompt_box, ipywidgets.HBox([seed, next_seed]), *others, note])
    box = ipywidgets.HBox([settings, image], layout={"flex_flow": "row wrap"})
    box.newest = live.follow(controls, work, note)  # counts the work that was finished and cancelled
    return box

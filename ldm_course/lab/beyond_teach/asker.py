"""The live box of notebook teach_it: type a prompt, drag a strength, and see the old model beside the taught one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import ipywidgets
from PIL import Image

from ldm_course.lab.beyond_teach.world import Judge
from ldm_course.lab.nb04_txt2img.studio import Sampler
from ldm_course.lab.shared.live import follow
from ldm_course.lab.shared.plots import grid, jpeg
from ldm_course.model import LatentDiffusion
from ldm_course.scenes.captions import caption

QUICK: dict[str, Any] = {"steps": 10, "scheduler": "dpm++", "guidance": 4.0}  # the settings of all images here
LARGEST = 1.5  # strength


def ask(
    before: LatentDiffusion,
    at: Callable[..., LatentDiffusion],
    prompt: str,
    seed: int = 105,
    knobs: tuple[str, ...] = ("strength",),
) -> ipywidgets.VBox:
    """One prompt and seed by two models; the images follow each control, and the classifier names the second.

    before: the model without a lesson; its image is made once for each prompt and seed.
    at: called with one strength for each knob, all of them 1 at first; returns the taught model.
    """
    wide = {"width": "520px"}
    words = ipywidgets.Text(value=prompt, continuous_update=False, description="prompt", layout=wide)
    number = ipywidgets.BoundedIntText(value=seed, min=0, max=9999, description="seed", layout={"width": "180px"})
    sliders = [
        ipywidgets.FloatSlider(value=1, min=0, max=LARGEST, step=0.1, description=name, layout=wide) for name in knobs
    ]
    note = ipywidgets.Label()
    image = ipywidgets.Image(format="jpeg", layout={"width": "528px", "max_width": "100%"})
    judge, sampler = Judge(), Sampler(before)
    known: dict[tuple[str, int], Image.Image] = {}

    def work(values: dict[str, Any]) -> Generator[None, None, None]:
        asked, strengths = (values["words"], values["number"]), [values[name] for name in knobs]
        if asked not in known:
            for sampled in sampler(*asked, **QUICK):
                if sampled is not None:
                    first = sampled
                yield
            known[asked] = first
        titles = ["before the lesson", f"strength {' and '.join(f'{s:g}' for s in strengths)}"]
        for sampled in Sampler(at(*strengths))(*asked, **QUICK):
            if sampled is not None:
                last = sampled
                image.value = jpeg(grid([[known[asked], last]], titles, side=512))
            yield
        (seen,) = judge.look([last])
        note.value = f"The classifier now sees: {caption(seen)}. {sampler.warning(asked[0])}"

    follow({"words": words, "number": number, **dict(zip(knobs, sliders))}, work, note)
    return ipywidgets.VBox([words, number, *sliders, note, image])

"""A widget for the notebook on flows: drag one dot of noise, and see how a flow carries it home."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from ldm_course.lab.beyond_flow.figures import BEHIND, REACH, board, way
from ldm_course.lab.beyond_flow.toy import Field
from ldm_course.lab.shared.live import follow
from ldm_course.lab.shared.pad import PointPad
from ldm_course.lab.shared.plots import grid, png

OdeStep = Callable[[Field, Tensor, float, float], Tensor]
Walk = Callable[[Field, Tensor, int, OdeStep], Tensor]  # (u, dots, steps, step) -> the path, (steps + 1, dots, 2)
FINE = 60  # steps of the walk that counts as exact


def page(
    walk: Walk, flows: Mapping[str, Field], step: OdeStep, start: tuple[float, float], n: int, points: Tensor
) -> tuple[Image.Image, str]:
    """The walk of one dot under each flow, in n steps and in FINE, and how far apart the two end, in words."""
    dot = torch.tensor([start], dtype=torch.float32, device="cpu")
    drawn, off = [], []
    for u in flows.values():
        path, fine = walk(u, dot, n, step), walk(u, dot, FINE, step)
        drawn.append(way(path[:, 0], fine[:, 0], points))
        off.append(f"{(path[-1] - fine[-1]).norm():.2f}")
    words = f"In {n} step{'s' * (n > 1)} it ends {' and '.join(off)} from where {FINE} steps lead."
    return grid([drawn], list(flows) if len(flows) > 1 else (), side=320), words


def own_dot(walk: Walk, flows: Mapping[str, Field], steps: Mapping[str, OdeStep], points: Tensor) -> ipywidgets.VBox:
    """Drag a dot of noise by the mouse or two sliders, and see its walk under each of the flows.

    walk: the notebook's.
    flows: name -> network; steps: name -> a solver's step, from which one chooses.
    points: of the drawing, (n, 2), drawn in grey.
    """
    x, y = (
        ipywidgets.FloatSlider(value=value, min=-REACH, max=REACH, step=0.05, description=name)
        for name, value in (("x", -0.5), ("y", 2.0))
    )
    n = ipywidgets.IntSlider(value=4, min=1, max=30, description="steps")
    solver = ipywidgets.ToggleButtons(options=list(steps), style={"button_width": "auto"})
    seen = points[:BEHIND]
    pad, note = PointPad(board(seen[:0], behind=seen), REACH), ipywidgets.Label()
    image = ipywidgets.Image(format="png", layout={"height": f"{320 if len(flows) == 1 else 280}px"})

    def dragged(change: object) -> None:
        x.value, y.value = pad.point

    def work(values: dict[str, Any]) -> Generator:
        yield
        pad.put(values["x"], values["y"])
        step = steps[values["solver"]]
        drawing, words = page(walk, flows, step, (values["x"], values["y"]), values["n"], seen)
        image.value, note.value = png(drawing), words

    pad.observe(dragged, names="point")
    follow({"x": x, "y": y, "n": n, "solver": solver}, work, note)
    return ipywidgets.VBox([ipywidgets.HBox([pad, image]), ipywidgets.HBox([solver, n]), x, y, note])

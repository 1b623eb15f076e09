"""The first widget of the notebook on flows: choose a drawing, or paint one."""

from __future__ import annotations

import ipywidgets
import numpy as np
from PIL import Image
from torch import Tensor

from ldm_course.lab.beyond_flow import toy
from ldm_course.lab.shared.painter import MaskPainter

OWN = "my own drawing"


class Easel(ipywidgets.VBox):
    """A drawing, from a list or painted with the mask painter. Without a page it is the first of the list."""

    def __init__(self) -> None:
        self.choice = ipywidgets.ToggleButtons(options=[*toy.SHAPES, OWN], style={"button_width": "auto"})
        self.painter = MaskPainter(Image.new("RGB", (toy.SIDE, toy.SIDE), "white"), toy.drawing(toy.SHAPES[0]))
        self.painter.brush = toy.SIDE // 10
        self.choice.observe(self._chosen, names="value")
        self.painter.observe(self._painted, names="mask")
        note = ipywidgets.Label("Choose a drawing, or paint on it. Then run the cells below.")
        super().__init__([self.choice, self.painter, note])

    @property
    def drawing(self) -> Image.Image:
        """What is on the easel, white on black."""
        image = self.painter.mask_image
        return Image.fromarray(np.where(np.asarray(image) > 127, 255, 0).astype(np.uint8))

    def points(self, count: int = 20_000, seed: int = 0) -> Tensor:
        """Random points of the drawing, as `toy.points`."""
        return toy.points(self.drawing, count, seed)

    def _chosen(self, change: dict) -> None:
        if change["new"] != OWN:
            self.painter.unobserve(self._painted, names="mask")  # it is not the learner who paints now
            self.painter.mask_image = toy.drawing(change["new"])
            self.painter.observe(self._painted, names="mask")

    def _painted(self, change: dict) -> None:
        self.choice.value = OWN

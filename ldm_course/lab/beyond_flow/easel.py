"""The first widget of the notebook on flows: choose a drawing, or paint one."""

from __future__ import annotations

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm_course.lab.beyond_flow import figures, toy
from ldm_course.lab.shared.painter import MaskPainter
from ldm_course.lab.shared.plots import png

OWN = "my own drawing"


class Easel(ipywidgets.VBox):
    """A drawing, from a list or painted with the mask painter. Without a page it is the first of the list."""

    def __init__(self) -> None:
        self._painting = False
        self.choice = ipywidgets.ToggleButtons(options=[*toy.SHAPES, OWN], style={"button_width": "auto"})
        self.painter = MaskPainter(Image.new("RGB", (toy.SIDE, toy.SIDE), "white"), toy.drawing(toy.SHAPES[0]))
        self.painter.brush = toy.SIDE // 10
        self.choice.observe(self._chosen, names="value")
        self.painter.observe(self._painted, names="mask")
        self.dots = ipywidgets.Image(format="png", layout={"width": "256px", "height": "256px"})
        note = ipywidgets.Label("Choose a drawing, or paint on it. Then run the cells below.")
        super().__init__([self.choice, ipywidgets.HBox([self.painter, self.dots]), note])
        self._show()

    @property
    def drawing(self) -> Image.Image:
        """What is on the easel, white on black."""
        image = self.painter.mask_image
        return Image.fromarray(np.where(np.asarray(image) > 127, 255, 0).astype(np.uint8))

    def points(self, count: int = 20_000, seed: int = 0) -> Tensor:
        """Random points of the drawing, as `toy.points`."""
        return toy.points(self.drawing, count, seed)

    def _chosen(self, change: dict) -> None:
        if change["new"] != OWN or not self._painting:  # whoever chooses their own begins with an empty sheet
            self.painter.unobserve(self._painted, names="mask")  # it is not the learner who paints now
            if change["new"] == OWN:
                self.painter.mask = ""
            else:
                self.painter.mask_image = toy.drawing(change["new"])
            self.painter.observe(self._painted, names="mask")
        self._show()

    def _painted(self, change: dict) -> None:
        self._painting, before = True, self.choice.value
        self.choice.value = OWN
        self._painting = False
        if before == OWN:
            self._show()

    def _show(self) -> None:
        """Draw some of the points beside the painter."""
        empty = self.drawing.getbbox() is None
        self.dots.value = png(figures.board(torch.zeros(0, 2) if empty else self.points(1200), side=256))

"""The mask painter, a widget on anywidget."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import anywidget
import traitlets
from PIL import Image

from ldm_course.errors import InputError

HERE = Path(__file__).parent


class MaskPainter(anywidget.AnyWidget):
    """Paint a mask over an image with mouse, pen, touch or keys (see the canvas's own help).

    image: base64 of the image as a PNG.
    mask: base64 of a PNG whose opaque part is masked; "" for an empty mask. In Python, use `mask_image`.
    brush: width of the brush, in pixels of the image.
    """

    _esm = HERE / "painter.js"
    _css = HERE / "painter.css"
    image = traitlets.Unicode().tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    mask = traitlets.Unicode("").tag(sync=True)
    brush = traitlets.Int(24).tag(sync=True)

    def __init__(self, image: Image.Image, mask: Image.Image | None = None):
        """Start with `mask` ("L", white where to repaint), or with an empty one.

        All values go to the page together with the widget: one that is set later may arrive before the page listens.
        """
        super().__init__(
            image=_base64(image.convert("RGB")),
            size=list(image.size),
            mask="" if mask is None else _encoded(mask, image.size),
            brush=max(2, max(image.size) // 6),
        )

    @property
    def mask_image(self) -> Image.Image:
        """The mask, of mode "L" and the image's size, white where to repaint.

        Setting a mask of another size raises InputError.
        """
        if not self.mask:
            return Image.new("L", (self.size[0], self.size[1]), 0)
        return Image.open(io.BytesIO(base64.b64decode(self.mask))).convert("RGBA").getchannel("A")

    @mask_image.setter
    def mask_image(self, mask: Image.Image) -> None:
        self.mask = _encoded(mask, (self.size[0], self.size[1]))


def _encoded(mask: Image.Image, size: tuple[int, int]) -> str:
    """A mask in the form in which the page gets it."""
    if mask.size != size:
        raise InputError(f"The mask is {mask.size[0]}x{mask.size[1]}, the image {size[0]}x{size[1]}.")
    level = mask.convert("L")
    white = Image.new("L", size, 255)
    return _base64(Image.merge("LA", (white, level))) if level.getbbox() else ""


def _base64(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()

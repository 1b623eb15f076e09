"""The mask painter: a small widget of our own on anywidget, and masks that need no mouse."""

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
    """Paint on a picture which part is to be made anew: mouse, pen, touch or keys (see the canvas's own help).

    mask: base64 of a PNG whose opaque part is masked; "" when nothing is. Python reads it as `mask_image`.
    brush: width of the brush, in pixels of the picture.
    """

    _esm = HERE / "painter.js"
    _css = HERE / "painter.css"
    picture = traitlets.Unicode().tag(sync=True)
    size = traitlets.List(traitlets.Int()).tag(sync=True)
    mask = traitlets.Unicode("").tag(sync=True)
    brush = traitlets.Int(24).tag(sync=True)

    def __init__(self, picture: Image.Image, mask: Image.Image | None = None):
        """Start with `mask` ("L", white where to paint anew) or with nothing masked.

        All of it goes to the page at once, with the widget: what is set later may come before the page listens.
        """
        super().__init__(
            picture=_base64(picture.convert("RGB")),
            size=list(picture.size),
            mask="" if mask is None else _encoded(mask, picture.size),
            brush=max(2, max(picture.size) // 6),
        )

    @property
    def mask_image(self) -> Image.Image:
        """The mask as a picture of mode "L" and the picture's size, white where to paint anew.

        Raises:
            InputError: on setting a mask of another size.
        """
        if not self.mask:
            return Image.new("L", (self.size[0], self.size[1]), 0)
        return Image.open(io.BytesIO(base64.b64decode(self.mask))).convert("RGBA").getchannel("A")

    @mask_image.setter
    def mask_image(self, mask: Image.Image) -> None:
        self.mask = _encoded(mask, (self.size[0], self.size[1]))


def box_mask(size: tuple[int, int], left: float, top: float, right: float, bottom: float) -> Image.Image:
    """A rectangle as a mask, in shares of width and height from the top left: (0, 0.5, 1, 1) is the lower half.

    Raises:
        InputError: unless 0 <= left < right <= 1 and 0 <= top < bottom <= 1.
    """
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InputError("A box needs 0 <= left < right <= 1 and 0 <= top < bottom <= 1.")
    width, height = size
    mask = Image.new("L", size, 0)
    mask.paste(255, (round(left * width), round(top * height), round(right * width), round(bottom * height)))
    return mask


def _encoded(mask: Image.Image, size: tuple[int, int]) -> str:
    """A mask as it travels."""
    if mask.size != size:
        raise InputError(f"The mask is {mask.size[0]}x{mask.size[1]}, the picture {size[0]}x{size[1]}.")
    level = mask.convert("L")
    white = Image.new("L", size, 255)
    return _base64(Image.merge("LA", (white, level))) if level.getbbox() else ""


def _base64(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="png")
    return base64.b64encode(file.getvalue()).decode()

"""PIL images to tensors and back, the size at which they are worked on, and masks for in-painting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ldm_course.errors import InputError, brief


def load_image(path: str | Path | BinaryIO) -> Image.Image:
    """Open an image file and read it whole. Raises InputError if there is no such file, or it is not an image."""
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        raise InputError(f"There is no file {str(path)!r}.") from None
    except Exception as error:  # of many kinds, for a file that is not an image, damaged, or far too large
        raise InputError(f"{str(path)!r} is not an image that can be read ({brief(error)}).") from None
    return image


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Any PIL image as RGB: turned upright as its EXIF says, laid on the background where it is transparent.

    Grey values of more than 8 bits are scaled to 0 ... 255; their range is recognised by the largest value: 255, 4095
    (12 bits) or 65535 (16 bits), and 1 for floats.

    Raises InputError if `image` is not a PIL image, its file is damaged, or its values are in none of these ranges.
    """
    if not isinstance(image, Image.Image):
        raise InputError(f"An image must be a PIL image, not {type(image).__name__}; open files with load_image.")
    if 0 in image.size:
        raise InputError(f"The image has {image.width} x {image.height} pixels, so there is nothing to work on.")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":  # PIL's own conversion clips these at 255
            image = Image.fromarray(_scaled_to_255(np.asarray(image)))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        return image.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # of many kinds: cut short, a damaged EXIF block, closed, a mode of PIL's own
        raise InputError(f"The image cannot be read ({brief(error)}); save it anew as PNG.") from None


def _scaled_to_255(grey: np.ndarray) -> np.ndarray:
    ranges = [1] if grey.dtype.kind == "f" else []
    white = next((top for top in (*ranges, 255, 4095, 65535) if grey.max() <= top), None)
    if white is None or not grey.min() >= 0:  # NaN, too
        raise InputError(
            f"The image's values run from {grey.min():g} to {grey.max():g}; save it with 0 ... 255, 0 ... 65535, or "
            "0 ... 1 as floats."
        )
    return (grey / white * 255 + 0.5).astype(np.uint8)


def to_grey(mask: Image.Image) -> Image.Image:
    """A mask as one channel, mode "L": white where to repaint, black where to keep, in between where it is soft.

    Transparent pixels count as black. A mask of values 0 and 1 is scaled to 0 and 255.

    Raises InputError as `to_rgb`, and for an image in place of a mask: one with colours, or with transparent pixels
    beside others than white and black.
    """
    grey = to_rgb(mask, background="black")
    pixels = np.asarray(grey)
    is_image = np.ptp(pixels.astype(int), axis=2).max() > 48  # JPEG tints a black and white mask by less
    if mask.has_transparency_data:
        luminance, alpha = mask.convert("RGBA").convert("LA").split()
        visible = np.asarray(luminance)[np.asarray(alpha) > 0]
        is_image |= visible.size > 0 and ((visible > 8) & (visible < 247)).mean() > 0.1
    if is_image:
        raise InputError(
            "The mask is an image, and a mask is white where to repaint and black where to keep; of an image with an "
            "erased part, ImageOps.invert(image.getchannel('A')) is a mask of that part."
        )
    grey = grey.convert("L")
    return grey.point(lambda value: 255 * value) if grey.getextrema()[1] == 1 else grey


def to_tensor(images: Image.Image | Sequence[Image.Image]) -> Tensor:
    """PIL images of any mode and of one size to (b, 3, h, w), float32 in [-1, 1]. One image gives b = 1."""
    images = [images] if isinstance(images, Image.Image) else images
    return pixels_to_tensor(np.stack([np.asarray(to_rgb(image)) for image in images]))


def pixels_to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (b, h, w, 3) to float32 (b, 3, h, w) in [-1, 1]."""
    return 2.0 * torch.from_numpy(pixels.astype(np.float32) / 255.0).permute(0, 3, 1, 2) - 1.0


def to_pil(x: Tensor) -> list[Image.Image]:
    """Images (b, 3, h, w) in [-1, 1], clamped to it, to b PIL images of mode RGB.

    Raises InputError if a value is NaN or infinite; a black or white image would hide it.
    """
    if not x.isfinite().all():
        raise InputError(
            "The image came out as NaN or infinite: the model's weights are broken, or its numbers grew too large; "
            "try a lower guidance_scale, or dtype=torch.float32."
        )
    pixels = (x.detach().float() / 2 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1).cpu().numpy()  # (b, h, w, 3)
    return [Image.fromarray(image) for image in (pixels * 255).round().astype(np.uint8)]


def worked_size(width: int, height: int, area: int, multiple: int = 8) -> tuple[int, int]:
    """The size (width, height) at which an image is worked on, the same rule for every task.

    It is the image's own size, shrunk in proportion if it has more than `area` pixels, with both sides rounded down
    to a multiple of `multiple`, the pixels of a latent cell. An image is never enlarged.

    Raises InputError if a side would be shorter than one latent cell.
    """
    if width * height > area:
        width_, height_ = math.isqrt(width * area // height), math.isqrt(height * area // width)
    else:
        width_, height_ = width, height
    if min(width_, height_) < multiple:
        raise InputError(
            f"An image of {width} x {height} pixels cannot be worked on: both sides must keep at least {multiple} "
            f"pixels when it is fitted into {area} pixels."
        )
    return width_ // multiple * multiple, height_ // multiple * multiple


def resized(images: list[Image.Image], size: tuple[int, int]) -> list[Image.Image]:
    """The images at `size` (width, height), with the filter that diffusers uses."""
    return [i if i.size == size else i.resize(size, Image.Resampling.LANCZOS) for i in images]


def latent_mask(mask: Image.Image, downscale: int = 8) -> Tensor:
    """A mask of an image to one of its latent, (1, 1, h/8, w/8), float32: 1 where to repaint, 0 where to keep.

    Grey counts as white from one half on, and the top left pixel of a cell decides (nearest-neighbour, as in
    diffusers).

    Raises InputError if no latent cell is to be repainted, or the mask is smaller than a cell.
    """
    grey = np.asarray(to_grey(mask), dtype=np.float32) / 255.0  # (h, w)
    hard = torch.from_numpy(grey >= 0.5).to(torch.float32)[None, None]  # (1, 1, h, w)
    if min(mask.size) < downscale:
        raise InputError(f"The mask has {mask.width} x {mask.height} pixels; each side needs {downscale} at least.")
    if not hard.any():
        raise InputError("The mask is empty; paint white where the image is to change.")
    cells = F.interpolate(hard, size=(hard.shape[2] // downscale, hard.shape[3] // downscale), mode="nearest")
    if not cells.any():
        raise InputError(
            f"The mask is too thin: it covers no latent cell of {downscale} x {downscale} pixels; widen it."
        )
    return cells

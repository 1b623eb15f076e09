"""Masks for in-painting: mode "L", white where to change the image. From a box, a named region, or a scene's part."""

from __future__ import annotations

import json
import re

from PIL import Image, ImageFilter

from ldm_course.errors import InputError, check_choice
from ldm_course.scenes import Scene

SCENE_KEY = "ldm_course.scene"  # the PNG text chunk in which `ldm-course scene` stores the scene
REGIONS = {  # left, top, right, bottom as fractions of the image's sides
    "upper-half": (0.0, 0.0, 1.0, 0.5),
    "lower-half": (0.0, 0.5, 1.0, 1.0),
    "left-half": (0.0, 0.0, 0.5, 1.0),
    "right-half": (0.5, 0.0, 1.0, 1.0),
    "centre": (0.25, 0.25, 0.75, 0.75),
}


def region_mask(name: str, size: tuple[int, int]) -> Image.Image:
    """A mask of `size` (width, height) for one of `REGIONS`. Raises InputError for another name."""
    check_choice("region", name, tuple(REGIONS))
    (width, height), (left, top, right, bottom) = size, REGIONS[name]
    return box_mask(size, (round(left * width), round(top * height), round(right * width), round(bottom * height)))


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A mask of `size` (width, height) for a box (left, top, right, bottom), in pixels from the top left corner.

    Raises InputError if the box is empty or reaches beyond the image.
    """
    (width, height), (left, top, right, bottom) = size, box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"The box {left},{top},{right},{bottom} does not fit the image; it must have 0 <= left < right <= "
            f"{width} and 0 <= top < bottom <= {height}."
        )
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def scene_mask(image: Image.Image, part: str) -> Image.Image:
    """The mask of a part ("face", "legs", ...) of an image that `ldm-course scene` wrote, with its scene inside.

    Raises InputError if the image holds no scene, the scene cannot be read, or it has no such part.
    """
    if SCENE_KEY not in image.info:
        raise InputError(
            f"The image does not say where {part!r} is, as only a .png by `ldm-course scene` does; give a box, or "
            f"a part that every image has: {', '.join(REGIONS)}."
        )
    try:
        scene = Scene(**json.loads(image.info[SCENE_KEY]))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError("The scene stored in the image cannot be read; render it again.") from error
    return scene.mask(part, image.width)


def grow(mask: Image.Image, pixels: int) -> Image.Image:
    """The mask widened by `pixels` on all sides."""
    for _ in range(pixels):
        mask = mask.filter(ImageFilter.MaxFilter(3))
    return mask


def mask_of(
    image: Image.Image, mask: Image.Image | None, box: str | None, part: str | None, grow_by: int
) -> Image.Image:
    """The mask that `ldm-course inpaint` was asked for: a given one, "left,top,right,bottom", or a named part.

    Args:
        image: the upright image.
        part: one of `REGIONS`, or of a scene's parts.
        grow_by: how far to widen the mask, in pixels.

    Raises:
        InputError: if it cannot be made, or has another size than the image.
    """
    if [mask, box, part].count(None) != 2:
        raise InputError("Say where to change the image by exactly one of --mask, --box and --part.")
    if box is not None:
        numbers = re.fullmatch(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", re.sub(r"\s", "", box))
        if not numbers:
            raise InputError(f"The box is {box!r}; it must be LEFT,TOP,RIGHT,BOTTOM in whole pixels.")
        left, top, right, bottom = map(int, numbers.groups())
        mask = box_mask(image.size, (left, top, right, bottom))
    elif mask is None:
        mask = region_mask(str(part), image.size) if part in REGIONS else scene_mask(image, str(part))
    if mask.size != image.size:
        raise InputError(
            f"The mask has {mask.width} x {mask.height} pixels and the image {image.width} x {image.height}; they "
            "must have one size."
        )
    return grow(mask, grow_by)

"""Small SVG helpers: colours, outlined shapes, rendering. Lengths are in pixels of a 128 x 128 image."""

from __future__ import annotations

import colorsys
import io
import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import resvg_py
from PIL import Image

from ldm_course.errors import InputError

OUTLINE = 2.2
"""Width of the dark outlines."""


class Piece(NamedTuple):
    """A bit of SVG that belongs to one part of the scene (see `PARTS`)."""

    part: str
    svg: str


def adjust(colour: str, hue: float = 0.0, light: float = 0.0) -> str:
    """`colour` ("#rrggbb") with its hue shifted (1 = once around) and its lightness too (0 to 1)."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    h, lightness, s = colorsys.rgb_to_hls(r, g, b)
    rgb = colorsys.hls_to_rgb((h + hue) % 1, min(max(lightness + light, 0), 1), s)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)


def path(d: str, fill: str, outline: str | None = None, width: float = OUTLINE) -> str:
    """A filled path, with an outline if a colour is given."""
    stroke = f' stroke="{outline}" stroke-width="{width}" stroke-linejoin="round"' if outline else ""
    return f'<path d="{d}" fill="{fill}"{stroke}/>'


def line(d: str, colour: str, width: float) -> str:
    """An open line with round ends."""
    return (
        f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width}"'
        ' stroke-linecap="round" stroke-linejoin="round"/>'
    )


def limb(d: str, width: float, fill: str, outline: str) -> str:
    """A thick line with an outline: a leg, a tail, a trunk."""
    return line(d, outline, width + 2 * OUTLINE) + line(d, fill, width)


def oval(cx: float, cy: float, rx: float, ry: float) -> str:
    """The path data of an ellipse."""
    return f"M{cx - rx} {cy}a{rx} {ry} 0 1 1 {2 * rx} 0a{rx} {ry} 0 1 1 {-2 * rx} 0z"


def shaded(d: str, fill: str, shade: str, outline: str, dx: float = -3, dy: float = -4) -> str:
    """An outlined shape with a soft shade: `shade` below, and over it the same shape moved by (dx, dy)."""
    clip = f"clip{zlib.crc32(d.encode()):08x}"
    return (
        f'<clipPath id="{clip}"><path d="{d}"/></clipPath>'
        + path(d, shade)
        + f'<g clip-path="url(#{clip})"><path d="{d}" fill="{fill}" transform="translate({dx} {dy})"/></g>'
        + f'<path d="{d}" fill="none" stroke="{outline}" stroke-width="{OUTLINE}" stroke-linejoin="round"/>'
    )


def moved(pieces: Iterable[Piece], transform: str) -> list[Piece]:
    """The pieces under an SVG transform."""
    return [Piece(part, f'<g transform="{transform}">{svg}</g>') for part, svg in pieces]


def document(pieces: Iterable[Piece]) -> str:
    """A complete SVG file of 128 x 128 units; the first pieces lie at the back."""
    body = "".join(svg for _, svg in pieces)
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="128" height="128" viewBox="0 0 128 128">'
    return f"{head}{body}</svg>"


def silhouette(pieces: Iterable[Piece], parts: set[str]) -> str:
    """Like `document`, but white where one of `parts` is visible and black elsewhere."""
    flat = [
        Piece(part, re.sub(r"#[0-9a-f]{6}", "#ffffff" if part in parts else "#000000", svg)) for part, svg in pieces
    ]
    return document(flat)


def rasterise(svg: str, size: int) -> Image.Image:
    """Render an SVG to an RGB image of `size` x `size` pixels; InputError unless 1 <= size <= 8192."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 8192:
        raise InputError(f"size must be a positive whole number of pixels, at most 8192, not {size!r}.")
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")

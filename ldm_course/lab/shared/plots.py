"""Figures for the notebooks, drawn from the live model: images side by side with PIL, curves with matplotlib.

Colour-blind readers can tell the colours apart: Okabe and Ito's for curves, purple to white to orange for values with
a sign, cividis for values without. Images are drawn at twice the size that they are shown at.
"""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm_course.images import to_pil
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import State

BLUE, ORANGE, GREEN, PINK, SKY, AMBER = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
INK, PALE = "#222222", "#bbbbbb"
LOW, MIDDLE, HIGH = (94, 60, 153), (247, 247, 247), (230, 97, 1)  # purple, white, orange
SIGNED = LinearSegmentedColormap.from_list("signed", [[value / 255 for value in c] for c in (LOW, MIDDLE, HIGH)])
SIDE, GAP, TEXT = 384, 16, 24  # of a panel, in drawn pixels; shown at half of that
PANELS = ("x_t", "eps", "x0_hat", "x0_hat, decoded")

FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"  # in curves and over images alike

# The style of every curve: `@style()` above a function that draws a figure, `with style():` around a cell's own.
style = functools.partial(
    matplotlib.rc_context,
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#777777",
        "axes.labelcolor": INK,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PINK, SKY, AMBER]),
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "xtick.color": "#555555",
        "ytick.color": "#555555",
    },
)


def show(figure: Figure | Image.Image, caption: str) -> None:
    """Display a figure, and its caption below.

    The output is an image and not HTML, because every viewer shows it: JupyterLab, Colab, GitHub, nbconvert. The
    caption is also the image's alternative text.
    """
    bundle, metadata = _bundle(figure, caption)
    display(bundle, raw=True, metadata=metadata)
    display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


class Live:
    """A figure that is redrawn in its place while a cell runs; the last drawing stays on the page."""

    def __init__(self, figure: Figure | Image.Image, caption: str):
        bundle, metadata = _bundle(figure, caption)
        self.caption = caption
        self.handle = display(bundle, raw=True, metadata=metadata, display_id=True)
        display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)

    def draw(self, figure: Figure | Image.Image) -> None:
        """Replace the drawing."""
        bundle, metadata = _bundle(figure, self.caption)
        if self.handle is not None:  # there is a page
            self.handle.update(bundle, raw=True, metadata=metadata)


def _bundle(figure: Figure | Image.Image, caption: str) -> tuple[dict[str, str], dict[str, dict]]:
    """The figure as the smaller of its possible files, with its alternative text and its width on the page."""
    image = rendered(figure) if isinstance(figure, Figure) else figure
    files = {"image/png": png(image), "image/jpeg": jpeg(image)}
    kind = min(files, key=lambda kind: len(files[kind]))
    return _encoded(kind, files[kind], image.width // 2, caption)


def _encoded(kind: str, file: bytes, width: int, caption: str) -> tuple[dict[str, str], dict[str, dict]]:
    bundle = {kind: base64.b64encode(file).decode(), "text/plain": caption}
    return bundle, {kind: {"alt": caption, "width": width}}


def rendered(figure: Figure) -> Image.Image:
    """The figure as an image, at 144 pixels an inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, bbox_inches="tight", facecolor="white")
    return Image.open(file).convert("RGB")


def png(figure: Figure | Image.Image) -> bytes:
    """The figure as a PNG file of at most 256 colours: small for curves and latents."""
    image = rendered(figure) if isinstance(figure, Figure) else figure.convert("RGB")
    file = io.BytesIO()
    image.quantize(256, Image.Quantize.MEDIANCUT, 1, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG file: small for what the decoder returns."""
    file = io.BytesIO()
    image.convert("RGB").save(file, format="jpeg", quality=80, optimize=True)
    return file.getvalue()


def animate(frames: Sequence[Image.Image], caption: str, seconds: float = 4.0, hold: float = 1.5) -> None:
    """Display frames of one size as an animation that plays on every page, and its caption below.

    Args:
        seconds: from the first frame to the last.
        hold: seconds for which the last frame stands before the animation starts again.
    """
    bundle, metadata = _encoded("image/png", animation(frames, seconds, hold), frames[0].width // 2, caption)
    display(bundle, raw=True, metadata=metadata)
    display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


def animation(frames: Sequence[Image.Image], seconds: float = 4.0, hold: float = 1.5) -> bytes:
    """The frames as an animated PNG file, in 256 colours that they share. Arguments as for `animate`."""
    frames = [frame.convert("RGB") for frame in frames]
    together = Image.new("RGB", (frames[0].width, len(frames) * frames[0].height))
    for i, frame in enumerate(frames):
        together.paste(frame, (0, i * frame.height))
    palette = together.quantize(256, Image.Quantize.MEDIANCUT, 1)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    each = round(1000 * seconds / max(1, len(frames) - 1))
    durations = [each] * (len(frames) - 1) + [round(1000 * hold)]
    file = io.BytesIO()
    drawn[0].save(
        file, "png", save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=True, disposal=0
    )
    return file.getvalue()


# ---- images ----------------------------------------------------------------------------------------------------


def latent_image(latent: Tensor) -> Image.Image:
    """A latent (c, h, w) with its channels as tiles, purple at -3, white at 0 and orange at 3."""
    c, h, w = latent.shape
    columns = math.ceil(math.sqrt(c))
    tiles = np.zeros((columns * math.ceil(c / columns), h, w))
    tiles[:c] = latent.detach().float().cpu().numpy()
    tiled = tiles.reshape(-1, columns, h, w).swapaxes(1, 2).reshape(-1, columns * w)
    pixels = np.stack([np.interp(tiled, (-3.0, 0.0, 3.0), anchors) for anchors in zip(LOW, MIDDLE, HIGH)], axis=-1)
    cell = max(1, SIDE // pixels.shape[1])  # drawn large enough for a line between the channels
    pixels = pixels.repeat(cell, axis=0).repeat(cell, axis=1)
    for line in range(h * cell, len(pixels), h * cell):
        pixels[line - 1 : line + 1] = 0
    for line in range(w * cell, pixels.shape[1], w * cell):
        pixels[:, line - 1 : line + 1] = 0
    return Image.fromarray(pixels.round().astype(np.uint8))


def grid(
    rows: Sequence[Sequence[Image.Image]],
    titles: Sequence[str] = (),
    labels: Sequence[str] = (),
    side: int = SIDE,
) -> Image.Image:
    """Images in rows, with a title over each column and a label before each row, if given."""
    font = ImageFont.truetype(FONT, TEXT)
    margin = max((math.ceil(font.getlength(label)) for label in labels), default=-2 * GAP) + 2 * GAP
    top = 2 * TEXT if titles else 0
    width = margin + max(map(len, rows)) * (side + GAP) - GAP
    canvas = Image.new("RGB", (width, top + len(rows) * (side + GAP) - GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for i, title in enumerate(titles):
        pen.text((margin + i * (side + GAP) + side // 2, top // 2), title, INK, font, anchor="mm")
    for i, row in enumerate(rows):
        y = top + i * (side + GAP)
        if labels:
            pen.text((margin - GAP, y + side // 2), labels[i], INK, font, anchor="rm")
        for j, image in enumerate(row):
            canvas.paste(_fitted(image, side), (margin + j * (side + GAP), y))
    return canvas


def _fitted(image: Image.Image, side: int) -> Image.Image:
    whole = image.width % side == 0  # shrunk by a whole number, as latents are: then their cells stay sharp
    return image.convert("RGB").resize((side, side), Image.Resampling.BOX if whole else Image.Resampling.LANCZOS)


def enlarged(x: Tensor, times: int = 8) -> Image.Image:
    """A small image (3, h, w) in [-1, 1], each pixel drawn as a square of times x times."""
    small = to_pil(x[None])[0]
    return small.resize((times * small.width, times * small.height), Image.Resampling.NEAREST)


# ---- the loop --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """A state of the loop, drawn: an image for each of PANELS, and the distance of x0_hat from the end."""

    t: int
    images: tuple[Image.Image, ...]
    distance: float


def trajectory(model: LatentDiffusion, states: Sequence[State]) -> list[Frame]:
    """Draw the states of one image's loop, with x0_hat decoded at each of them."""
    end, frames = states[-1].x_t[0], []
    for state in states:
        latents = [state.x_t[0], state.eps[0], state.x0_hat[0]]
        images = [*map(latent_image, latents), decoded(model, state.x0_hat)]
        distance = ((state.x0_hat[0] - end).norm() / end.norm()).item()
        frames.append(Frame(state.t, tuple(images), distance))
    return frames


def decoded(model: LatentDiffusion, z: Tensor) -> Image.Image:
    """Decode the first of some scaled latents (b, c, h, w)."""
    return to_pil(model.decode(z[:1]))[0]


def strip(frame: Frame) -> Image.Image:
    """One frame, its four images side by side."""
    return grid([frame.images], titles=PANELS)


def sheet(frames: Sequence[Frame], columns: int = 7) -> Image.Image:
    """A contact sheet: frames from first to last at equal distances, one to a column."""
    picks = [frames[round(i)] for i in np.linspace(0, len(frames) - 1, min(columns, len(frames)))]
    titles = [f"t = {frame.t}" if frame.t >= 0 else "end" for frame in picks]
    return grid(list(zip(*(frame.images for frame in picks))), titles, PANELS, side=SIDE // 2)


# ---- curves ----------------------------------------------------------------------------------------------------


@style()
def losses(curves: dict[str, Sequence[float]], steps: int, label: str = "loss") -> Figure:
    """Training curves over the steps done so far, of `steps` in all: each step pale, and a running mean."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE, GREEN, PINK)):
        every, window = np.asarray(values), max(1, steps // 20)
        means = [every[max(0, i - window) : i + 1].mean() for i in range(len(every))]
        axes.plot(every, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(means, color=colour, label=name)
    axes.set(xlabel="training step", ylabel=label, xlim=(0, steps), ylim=(0, None))
    if len(curves) > 1:
        axes.legend()
    return figure

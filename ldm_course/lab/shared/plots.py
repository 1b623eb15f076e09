"""Figures for the notebooks, drawn from the live model: pictures side by side with PIL, curves with matplotlib.

Colours keep apart for colour-blind readers: Okabe and Ito's blue and orange for curves, purple to white to orange
for values with a sign, cividis for values without. Pictures are drawn at twice the size they are shown at.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from IPython.display import display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm_course.images import to_pil
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import State
from ldm_course.schedule import NoiseSchedule

BLUE, ORANGE, INK, PALE = "#0072b2", "#d55e00", "#222222", "#bbbbbb"
LOW, MIDDLE, HIGH = (94, 60, 153), (247, 247, 247), (230, 97, 1)  # purple, white, orange
SIGNED = LinearSegmentedColormap.from_list("signed", [[value / 255 for value in c] for c in (LOW, MIDDLE, HIGH)])
SIDE, GAP, TEXT = 384, 16, 26  # of a panel, in drawn pixels; shown at half of that
PANELS = ("x_t", "eps", "x0_hat", "x0_hat, decoded")


def show(figure: Figure | Image.Image, caption: str) -> None:
    """Display a figure, and its caption below.

    As an image output, and not as HTML, because that is what every page shows: JupyterLab, Colab, GitHub, nbconvert.
    The caption is the picture's alternative text, too; but few pages read that, so it is always there to see.
    """
    bundle, metadata = _bundle(figure, caption)
    display(bundle, raw=True, metadata=metadata)
    display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


class Live:
    """A figure that is drawn anew in its place while a cell runs; the last drawing is what stays on the page."""

    def __init__(self, figure: Figure | Image.Image, caption: str):
        bundle, metadata = _bundle(figure, caption)
        self.caption = caption
        self.handle = display(bundle, raw=True, metadata=metadata, display_id=True)
        display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)

    def draw(self, figure: Figure | Image.Image) -> None:
        bundle, metadata = _bundle(figure, self.caption)
        if self.handle is not None:  # there is a page
            self.handle.update(bundle, raw=True, metadata=metadata)


def _bundle(figure: Figure | Image.Image, caption: str) -> tuple[dict[str, str], dict[str, dict]]:
    """The figure as the smaller of its possible files, with its alternative text and its width on the page."""
    files = {"image/png": png(figure)}
    if isinstance(figure, Image.Image):
        files["image/jpeg"] = jpeg(figure)
    kind = min(files, key=lambda kind: len(files[kind]))
    width = Image.open(io.BytesIO(files[kind])).width // 2
    bundle = {kind: base64.b64encode(files[kind]).decode(), "text/plain": caption}
    return bundle, {kind: {"alt": caption, "width": width}}


def png(figure: Figure | Image.Image) -> bytes:
    """The figure as a PNG file: small for curves and latents."""
    file = io.BytesIO()
    if isinstance(figure, Figure):
        figure.savefig(file, format="png", dpi=144, bbox_inches="tight", metadata={"Software": None})
    else:
        figure.save(file, format="png", optimize=True)
    return file.getvalue()


def jpeg(picture: Image.Image) -> bytes:
    """The picture as a JPEG file: small for what the decoder paints."""
    file = io.BytesIO()
    picture.save(file, format="jpeg", quality=90, subsampling=0, optimize=True)
    return file.getvalue()


# ---- pictures --------------------------------------------------------------------------------------------------


def latent_picture(latent: Tensor) -> Image.Image:
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
    """Pictures in rows, with a title over each column and a label before each row, if given."""
    font = ImageFont.load_default(TEXT)
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
        for j, picture in enumerate(row):
            canvas.paste(_fitted(picture, side), (margin + j * (side + GAP), y))
    return canvas


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    whole = picture.width % side == 0  # shrunk by a whole number, as latents are: then their cells stay sharp
    return picture.convert("RGB").resize((side, side), Image.Resampling.BOX if whole else Image.Resampling.LANCZOS)


# ---- the way through the loop ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """A state of the loop, drawn: a picture for each of PANELS, and how far x0_hat still is from the end."""

    t: int
    pictures: tuple[Image.Image, ...]
    distance: float


def trajectory(model: LatentDiffusion, states: Sequence[State]) -> list[Frame]:
    """Draw the states of one picture's loop, x0_hat decoded at each of them."""
    end, frames = states[-1].x_t[0], []
    for state in states:
        latents = [state.x_t[0], state.eps[0], state.x0_hat[0]]
        pictures = [*map(latent_picture, latents), decoded(model, state.x0_hat)]
        distance = ((state.x0_hat[0] - end).norm() / end.norm()).item()
        frames.append(Frame(state.t, tuple(pictures), distance))
    return frames


@torch.no_grad()
def decoded(model: LatentDiffusion, latent: Tensor) -> Image.Image:
    """What the decoder makes of the first of some scaled latents (b, c, h, w)."""
    z = latent[:1].to(model.device, model.dtype) / model.vae.config.scaling_factor
    with model.at_work(model.vae):
        return to_pil(model.vae.decode(z))[0]


def strip(frame: Frame) -> Image.Image:
    """One frame, its four pictures side by side."""
    return grid([frame.pictures], titles=PANELS)


def sheet(frames: Sequence[Frame], columns: int = 7) -> Image.Image:
    """A contact sheet: frames from first to last in even distances, one to a column."""
    picks = [frames[round(i)] for i in np.linspace(0, len(frames) - 1, min(columns, len(frames)))]
    titles = [f"t = {frame.t}" if frame.t >= 0 else "end" for frame in picks]
    return grid(list(zip(*(frame.pictures for frame in picks))), titles, PANELS, side=SIDE // 2)


# ---- curves ----------------------------------------------------------------------------------------------------


def noise_levels(schedule: NoiseSchedule, timesteps: Sequence[int]) -> Figure:
    """Signal and noise over all timesteps, with dots at those that are visited."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    T = len(schedule.alpha_bars)
    for share, name, colour, style, above in (
        (schedule.alpha_bars, "signal: sqrt(alpha_bar)", BLUE, "-", 0.05),
        (1 - schedule.alpha_bars, "noise: sqrt(1 - alpha_bar)", ORANGE, "--", -0.13),
    ):
        weight = share.sqrt()
        axes.plot(weight, style, color=colour)
        axes.plot(timesteps, weight[list(timesteps)], "o", color=colour, markersize=3)
        axes.text(0.62 * T, float(weight[int(0.62 * T)]) + above, name, color=colour)
    axes.set(xlabel="timestep t", ylabel="weight in x_t", ylim=(0, 1.05), xlim=(-10, T + 10))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def losses(curves: dict[str, Sequence[float]], steps: int, label: str = "loss") -> Figure:
    """Training curves over the steps done so far, of `steps` in all: each step pale, a running mean over it."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE, "#009e73", "#cc79a7")):
        every, window = np.asarray(values), max(1, steps // 20)
        means = [every[max(0, i - window) : i + 1].mean() for i in range(len(every))]
        axes.plot(every, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(means, color=colour, label=name)
    axes.set(xlabel="training step", ylabel=label, xlim=(0, steps), ylim=(0, None))
    if len(curves) > 1:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def similarities(matrix: Tensor, labels: Sequence[str]) -> Figure:
    """A square table of similarities as a picture, each with its number."""
    values = matrix.detach().float().cpu().numpy()
    figure = Figure(figsize=(0.62 * len(labels) + 2.6, 0.62 * len(labels)))
    axes = figure.subplots()
    low = float(values.min())
    axes.imshow(values, cmap="cividis", vmin=low, vmax=1.0)
    for (i, j), value in np.ndenumerate(values):
        dark = value < (low + 1.0) / 2
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure

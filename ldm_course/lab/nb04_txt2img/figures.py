"""What notebook 04 draws and measures: similarities of images and captions, and what guidance gains and costs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm_course.evaluate.metrics import Share
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.measure import interval


def similarity_table(
    similarity: Tensor, images: Sequence[Image.Image], captions: Sequence[str], side: int = 96
) -> Image.Image:
    """Cosines of captions, the rows, and images, the columns. A frame marks the caption nearest to each image.

    similarity: (captions, images).
    """
    values = similarity.detach().float().cpu()
    nearest = values.argmax(dim=0).tolist()
    rows = [
        [_cosine_tile(value, nearest[j] == i, side) for j, value in enumerate(row)]
        for i, row in enumerate(values.tolist())
    ]
    return plots.grid([images, *rows], labels=["", *captions], side=side)


def _cosine_tile(value: float, framed: bool, side: int) -> Image.Image:
    r, g, b, _ = matplotlib.colormaps["cividis"]((min(1.0, max(-1.0, value)) + 1) / 2, bytes=True)
    tile = Image.new("RGB", (side, side), (r, g, b))
    pen, font = ImageDraw.Draw(tile), ImageFont.load_default(22)
    pen.text((side // 2, side // 2), f"{value:.2f}", "black" if value > 0 else "white", font, anchor="mm")
    if framed:
        pen.rectangle((0, 0, side - 1, side - 1), outline=plots.ORANGE, width=6)
    return tile


def distance_from_mean(x: Tensor) -> Tensor:
    """The distance of each of n images (n, 3, h, w) in [-1, 1] from their mean, (n,).

    It is the root mean square over the pixels, whose whole range counts as 1.
    """
    return (x - x.mean(dim=0)).square().mean(dim=(1, 2, 3)).sqrt() / 2


def disagreement(attributes: Sequence[dict[str, str]], names: Sequence[str]) -> Tensor:
    """For each of n images the share of the others that differ from it, the mean over the named attributes, (n,)."""
    rows = [[mean(one[name] != other[name] for name in names) for other in attributes] for one in attributes]
    return torch.tensor(rows, dtype=torch.float32, device="cpu").sum(dim=1) / (len(attributes) - 1)


@plots.style()
def plot_guidance_tradeoff(scales: Sequence[float], right: Sequence[Share], disagreements: Tensor) -> Figure:
    """Guidance scale against the share of right images, and against `disagreement`, (scales, n), with intervals."""
    shares = torch.tensor([share.right / share.count for share in right], dtype=torch.float32, device="cpu")
    ends = torch.tensor([share.interval() for share in right], dtype=torch.float32, device="cpu").T  # (2, scales)
    middle, half = interval(disagreements)
    figure = Figure(figsize=(9, 3.0), layout="constrained")
    left, side = figure.subplots(1, 2)
    for axes, values, error, label, colour in (
        (left, shares, (ends - shares).abs(), "share of images that are right", plots.ORANGE),
        (side, middle, half, "share of pairs that differ", plots.BLUE),
    ):
        axes.errorbar(scales, values.numpy(), error.numpy(), fmt="o-", color=colour, markersize=4, capsize=2)
        axes.set(xlabel="guidance scale s", ylabel=label, ylim=(-0.03, 1.03))
    return figure

"""The first half of notebook 03: the inputs of group norms, their correlations, and the effect of groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from ldm_course.errors import InputError
from ldm_course.groupnorm import group_norm_by_hand
from ldm_course.lab.shared.measure import interval
from ldm_course.lab.shared.plots import BLUE, INK, ORANGE, PALE, SIGNED, style

# ---- measuring -------------------------------------------------------------------------------------------------


@torch.no_grad()
def inputs_of(modules: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, Tensor]:
    """The input of each module's last call while `run()` runs: name -> (b, c, ...), float32, on the CPU."""
    inputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple], None]:
        return lambda module, args: inputs.update({name: args[0].float().cpu()})

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in modules.items()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def by_distance(x: Tensor) -> Tensor:
    """The correlation of two positions of a feature map, by their distance.

    x is (b, c, h, w). Two positions' values are correlated over the b images, each channel by itself; the mean over
    all images at a position is subtracted first. Returns (c, d): for each channel the mean over all pairs of
    positions that are 1, 2, ..., d cells apart (rounded), with d = max(h, w) - 1.

    Raises InputError for one image or one position.
    """
    b, _, h, w = x.shape
    if b < 2 or max(h, w) < 2:
        raise InputError(f"A correlation needs two images and two positions or more, not {b} of {h} x {w}.")
    values = (x - x.mean(dim=0)) / x.std(dim=0, unbiased=False).clamp_min(1e-8)
    values = values.flatten(2)  # (b, c, h*w)
    correlation = torch.einsum("bcp,bcq->cpq", values, values) / b
    rows, columns = (torch.arange(n, dtype=torch.float64, device=x.device) for n in (h, w))
    places = torch.cartesian_prod(rows, columns)  # (h*w, 2)
    apart = torch.cdist(places, places).round()
    return torch.stack([correlation[:, apart == d].mean(dim=1) for d in range(1, max(h, w))], dim=1)


def inside_minus_across(x: Tensor, groups: int, orders: int = 200) -> tuple[float, Tensor]:
    """How much more the channels of one group are correlated than those of different groups.

    x is (b, c, h, w). The result is the mean absolute correlation, over all images and positions, of the pairs of
    channels inside a group, minus that of the pairs across groups. It is computed for the channels in their own
    order, and then for random orders, (orders,), in which the groups mean nothing.

    Raises InputError if there is no pair inside a group, or none across groups.
    """
    c = x.shape[1]
    if groups < 2 or groups >= c or c % groups:
        raise InputError(f"{c} channels in {groups} groups leave no pairs to compare inside groups and across them.")
    alike = torch.corrcoef(x.transpose(0, 1).flatten(1)).abs()  # (c, c)
    group = torch.arange(c, dtype=torch.int64, device=x.device) * groups // c
    inside = (group[:, None] == group) & ~torch.eye(c, dtype=torch.bool, device=x.device)
    across = group[:, None] != group

    def difference(order: Tensor) -> Tensor:
        reordered = alike[order][:, order]
        return reordered[inside].mean() - reordered[across].mean()

    generator = torch.Generator("cpu").manual_seed(0)
    shuffles = [torch.randperm(c, generator=generator, dtype=torch.int64, device="cpu") for _ in range(orders)]
    own_order = torch.arange(c, dtype=torch.int64, device=x.device)
    return difference(own_order).item(), torch.stack([difference(shuffle) for shuffle in shuffles])


def possible_groups(channels: int) -> list[int]:
    """The numbers of groups that cut this many channels into equal parts, from 1 to all."""
    return [groups for groups in range(1, channels + 1) if channels % groups == 0]


# ---- drawing ---------------------------------------------------------------------------------------------------


def group_page(x: Tensor, groups: int) -> Figure:
    """One image's feature map (c, h, w), normalised in this many groups. See `group_sheet`."""
    return group_sheet(x, [groups])


@style()
def group_sheet(x: Tensor, numbers: Sequence[int]) -> Figure:
    """A feature map (c, h, w) normalised in each number of groups, one row for each.

    Left the channels as tiles, purple below zero and orange above, framed in their group's colour, blue or orange
    in turn. Right each channel's mean, and one standard deviation to either side.
    """
    figure = Figure(figsize=(9.2, 2.7 * len(numbers)))
    figure.subplots_adjust(0.01, 0.25 / len(numbers), 0.99, 1 - 0.12 / len(numbers), wspace=0.14, hspace=0.4)
    rows = figure.subplots(len(numbers), 2, squeeze=False, width_ratios=(1, 1.5))
    ones = torch.ones(len(x), dtype=torch.float32, device=x.device)
    for (tiles, means), groups in zip(rows, numbers):
        y = group_norm_by_hand(x[None].float(), groups, ones, 0 * ones, 1e-5)[0]
        _draw_tiles(tiles, y, groups)
        _draw_channels(means, y, groups)
    return figure


def _colours(channels: int, groups: int) -> list[str]:
    return [(BLUE, ORANGE)[c * groups // channels % 2] for c in range(channels)]


def _draw_tiles(axes: Axes, y: Tensor, groups: int) -> None:
    c, h, w = y.shape
    columns = min(n for n in possible_groups(c) if n * n >= c)
    edge = max(1, w // 8)
    tall, wide = h + 2 * edge, w + 2 * edge
    canvas = np.ones((c // columns * (tall + edge), columns * (wide + edge), 3))
    for i, colour in enumerate(_colours(c, groups)):
        top, left = i // columns * (tall + edge), i % columns * (wide + edge)
        canvas[top : top + tall, left : left + wide] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        canvas[top + edge : top + edge + h, left + edge : left + edge + w] = SIGNED(y[i].numpy() / 6 + 0.5)[..., :3]
    axes.imshow(canvas, interpolation="nearest")
    axes.set_axis_off()
    size = c // groups
    axes.set_title(f"{groups} group{'s' * (groups > 1)} of {size} channel{'s' * (size > 1)}", fontsize=11)


def _draw_channels(axes: Axes, y: Tensor, groups: int) -> None:
    flat, colours = y.flatten(1), _colours(len(y), groups)
    mean, std = flat.mean(1).numpy(), flat.std(1, unbiased=False).numpy()
    axes.vlines(range(len(y)), mean - std, mean + std, colors=colours, linewidth=1)
    axes.scatter(range(len(y)), mean, c=colours, s=9, zorder=3)
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=0)
    axes.set(ylim=(-3.2, 3.2), xlim=(-1, len(y)), xlabel="channel", ylabel="mean ± std")


def reach(changed: Mapping[str, Tensor]) -> Figure:
    """For each norm the outputs, (n, c, h, w) of booleans, that changed with one number of the input.

    Above by image and channel, below by position, within the image and channel where most changed.
    """
    figure = Figure(figsize=(2.1 * len(changed), 2.9), layout="constrained")
    rows = figure.subplots(2, len(changed), height_ratios=(1, 1.3))
    for column, (name, mask) in enumerate(changed.items()):
        above, below = rows[0][column], rows[1][column]
        n, c = divmod(int(mask.sum(dim=(2, 3)).argmax()), mask.shape[1])
        for axes, part in ((above, mask.any(dim=3).any(dim=2)), (below, mask[n, c])):
            axes.pcolormesh(part.numpy(), cmap=ListedColormap(["#f2f2f2", BLUE]), vmin=0, vmax=1, edgecolor="white")
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.invert_yaxis()
            axes.spines[:].set_visible(False)
        above.set_title(name, fontsize=10)
    rows[0][0].set_ylabel("image", fontsize=9)
    rows[1][0].set_ylabel("h", fontsize=9)
    for axes, label in [(axes, "channel") for axes in rows[0]] + [(axes, "w") for axes in rows[1]]:
        axes.set_xlabel(label, fontsize=9)
    return figure


@style()
def batch_errors(sizes: Sequence[int], errors: Tensor) -> Figure:
    """The error of batch statistics against the population's, (len(sizes), repeats), on logarithmic axes."""
    figure = Figure(figsize=(6.4, 3.2))
    axes = figure.subplots()
    middle, low, high = errors.mean(1), errors.quantile(0.025, dim=1), errors.quantile(0.975, dim=1)
    axes.fill_between(sizes, low, high, color=BLUE, alpha=0.2, linewidth=0, label="95% of batches")
    axes.plot(sizes, middle, "o-", color=BLUE, markersize=4, label="BatchNorm, mean over batches")
    slope = [middle[0].item() / math.sqrt(size / sizes[0]) for size in sizes]
    axes.plot(sizes, slope, ":", color=INK, label="falling as 1 / √batch size")
    axes.set(xscale="log", yscale="log", xlabel="images in the batch", ylabel="error of a normalised value")
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    ticks = [tick for tick in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if low.min() / 1.5 < tick < high.max() * 1.5]
    axes.set_yticks(ticks, map(str, ticks))
    axes.legend()
    return figure


@style()
def distances(curves: Mapping[str, Tensor]) -> Figure:
    """Correlation of positions against their distance: name -> (channels, d), the results of `by_distance`."""
    figure = Figure(figsize=(6.4, 3.2))
    axes = figure.subplots()
    for (name, curve), (colour, mark) in zip(curves.items(), ((BLUE, "o-"), (ORANGE, "s--"), (INK, "^:"))):
        mean, half = interval(curve, dim=0)
        x = range(1, curve.shape[1] + 1)
        axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, mean, mark, color=colour, markersize=4, label=name)
    axes.axhline(0, color=PALE, linewidth=0.8, zorder=0)
    axes.set(xlabel="distance of two positions, in cells", ylabel="correlation")
    axes.legend()
    return figure


@style()
def orders(differences: Mapping[str, tuple[float, Tensor]]) -> Figure:
    """The result of `inside_minus_across` for each layer: a dot on the 95% interval of random orders."""
    figure = Figure(figsize=(7.2, 0.21 * len(differences) + 1))
    axes = figure.subplots()
    for row, (real, chance) in enumerate(differences.values()):
        low, high = chance.quantile(0.025).item(), chance.quantile(0.975).item()
        outside = not low <= real <= high
        axes.plot([low, high], [row, row], color=PALE, linewidth=5, solid_capstyle="butt")
        axes.plot(real, row, "D" if outside else "o", color=ORANGE if outside else BLUE, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(differences)), list(differences), fontsize=7)
    axes.set(xlabel="|correlation| of channels: inside a group minus across groups", ylim=(len(differences), -1))
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    return figure

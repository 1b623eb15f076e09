"""The exercises of notebook 02."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm_course import unet
from ldm_course.blocks import ResnetBlock
from ldm_course.lab.shared.verdict import RIGHT, WRONG, Verdict, compare, draws, plugged
from ldm_course.model import LatentDiffusion

# ---- exercise 1 ------------------------------------------------------------------------------------------------


def timestep_embedding(yours: Callable[[Tensor, int], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 1: the embedding of a batch of timesteps; first alone, then in the real pipeline."""

    def waves(exponent: Callable[[Tensor, int], Tensor], scale: float = 1.0) -> Callable[[Tensor, int], Tensor]:
        def mistake(t: Tensor, dim: int) -> Tensor:
            angles = scale * t[:, None] * 10_000.0 ** exponent(torch.arange(dim // 2), dim)
            return torch.cat([angles.cos(), angles.sin()], dim=1)

        return mistake

    right = unet.timestep_embedding
    mistakes = [
        (
            lambda t, dim: right(t, dim).roll(dim // 2, dims=1),
            "The sines come first in yours; Stable Diffusion puts the cosines first.",
        ),
        (
            lambda t, dim: right(t, dim).unflatten(1, (2, -1)).transpose(1, 2).flatten(1),
            "Cosines and sines take turns in yours; here all the cosines come first, then all the sines.",
        ),
        (
            lambda t, dim: right(t, dim).unflatten(1, (2, -1)).flip(1).transpose(1, 2).flatten(1),
            "Sines and cosines take turns, as in the paper; here all the cosines come first, then all the sines.",
        ),
        (
            waves(lambda i, dim: i / (dim // 2)),
            "The frequencies rise from 1 upwards: the exponent's minus is missing.",
        ),
        (waves(lambda i, dim: -i / dim), "The frequencies end at 1/100: i runs up to dim/2, so divide it by dim/2."),
        (
            waves(lambda i, dim: -i / (dim // 2 - 1)),
            "The last frequency is exactly 1/10000, so you divided by dim/2 - 1; Stable Diffusion divides by dim/2.",
        ),
        (
            waves(lambda i, dim: -i / (dim // 2), 2 * math.pi),
            "It turns 2 pi times too fast: the angle is t times the frequency, without a 2 pi.",
        ),
        (
            waves(lambda i, dim: -i / (dim // 2), 1 / 1000),
            "It divides t by 1000; the timestep goes in as it is, from 0 to 999.",
        ),
    ]
    cases = [(torch.tensor([0, 1, 7, 40]), 8), (torch.tensor([3]), 48)]  # small: float32 rounds the larger angles
    verdict = compare(yours, right, cases, mistakes)
    return plugged(model, timestep_embedding=yours) if verdict.status == RIGHT else verdict


# ---- exercise 2 ------------------------------------------------------------------------------------------------


def resnet_block(yours: type[nn.Module], model: LatentDiffusion) -> Verdict:
    """Exercise 2: the residual block; first alone, then as every residual block of UNet and VAE."""

    def run(block: type[nn.Module]) -> Callable[[int, int, Tensor, Tensor | None], Tensor]:
        return lambda c_in, c_out, x, temb: _filled(block, c_in, c_out, temb is not None)(x, temb)

    def with_forward(forward: Callable[[ResnetBlock, Tensor, Tensor], Tensor]) -> Callable:
        return run(type("Mistake", (ResnetBlock,), {"forward": forward}))

    right = run(ResnetBlock)
    same, wider = ((c, 8, *draws(1, (2, c, 5, 5)), *draws(1, (2, 16))) for c in (8, 6))
    verdict = compare(run(yours), right, [same], [(with_forward(wrong), hint) for wrong, hint in BLOCK_MISTAKES])
    if verdict.status != RIGHT:
        return verdict
    if compare(run(yours), right, [wider], []).status != RIGHT:
        return Verdict(
            WRONG,
            "With as many channels out as in it is right, but not from 6 to 8: there x does not fit, and must go "
            "through self.conv_shortcut.",
        )
    timeless = [(8, 8, same[2], None), (6, 8, wider[2], None)]
    if compare(run(yours), right, timeless, []).status != RIGHT:
        return Verdict(
            WRONG,
            "In the UNet it is right, but not in the VAE, which knows no time: temb and self.time_emb_proj are None "
            "there, and nothing is added.",
        )
    return plugged(model, ResnetBlock=yours)


def _filled(block: type[nn.Module], c_in: int, c_out: int, timed: bool) -> nn.Module:
    """A block whose weights follow from its shape alone."""
    made = block(c_in, c_out, 2, 1e-5, 16 if timed else None)
    generator = torch.Generator().manual_seed(2)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 2
    return made


def _halves(block: ResnetBlock, x: Tensor, shift: Tensor | float, late: Tensor | float = 0.0) -> Tensor:
    h = block.conv1(F.silu(block.norm1(x))) + shift
    return block.conv2(F.silu(block.norm2(h))) + late


def _shift(block: ResnetBlock, temb: Tensor) -> Tensor:
    assert block.time_emb_proj is not None
    return block.time_emb_proj(F.silu(temb))[:, :, None, None]


BLOCK_MISTAKES: list[tuple[Callable[[ResnetBlock, Tensor, Tensor], Tensor], str]] = [
    (
        lambda block, x, temb: _halves(block, x, _shift(block, temb)),
        "The shortcut is missing: x itself is added at the end.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, 0.0),
        "The time is missing: it is added between the two halves, one number per channel.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, 0.0, late=_shift(block, temb)),
        "The time comes too late: it is added after the first convolution, before the second norm.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, block.time_emb_proj(temb)[:, :, None, None]),  # type: ignore[misc]
        "The time goes into its linear layer as it is; it goes through a SiLU first.",
    ),
    (
        lambda block, x, temb: x + block.conv2(block.norm2(block.conv1(block.norm1(x)) + _shift(block, temb))),
        "The SiLUs are missing. Without a SiLU before each convolution, two of them can do little more than one.",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(F.relu(block.norm2(block.conv1(F.relu(block.norm1(x))) + _shift(block, temb))))
        ),
        "It uses ReLU; Stable Diffusion uses SiLU.",
    ),
    (
        lambda block, x, temb: x + block.conv2(F.silu(block.conv1(F.silu(x)) + _shift(block, temb))),
        "The norms are missing: each convolution reads silu(norm(...)).",
    ),
    (
        lambda block, x, temb: (
            x + F.silu(block.norm2(block.conv2(F.silu(block.norm1(block.conv1(x))) + _shift(block, temb))))
        ),
        "Norm and SiLU come after the convolutions in yours; here they come before them.",
    ),
]

# ---- exercise 3 ------------------------------------------------------------------------------------------------

Projection = Callable[[Tensor], Tensor]


def attention_map(yours: Callable[[Tensor, Tensor, Projection, Projection, int], Tensor]) -> Verdict:
    """Exercise 3: how each position shares its attention out among the tokens, from q, k and the equation."""
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(12, c, generator=generator) / 2 for c in (12, 10)]
    to_q, to_k = ((lambda x, w=w: x @ w.T) for w in weights)

    def heads_of(y: Tensor, heads: int) -> Tensor:
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    def scores(x: Tensor, context: Tensor, heads: int) -> Tensor:
        q, k = heads_of(to_q(x), heads), heads_of(to_k(context), heads)
        return q @ k.transpose(-1, -2)

    def right(x: Tensor, context: Tensor, heads: int) -> Tensor:
        return (scores(x, context, heads) * (heads / 12) ** 0.5).softmax(dim=-1)

    def reshaped(x: Tensor, context: Tensor, heads: int) -> Tensor:
        q, k = (y.reshape(len(y), heads, -1, 12 // heads) for y in (to_q(x), to_k(context)))
        return (q @ k.transpose(-1, -2) * (heads / 12) ** 0.5).softmax(dim=-1)

    def interleaved(x: Tensor, context: Tensor, heads: int) -> Tensor:
        q, k = (y.unflatten(-1, (-1, heads)).movedim(-1, 1) for y in (to_q(x), to_k(context)))
        return (q @ k.transpose(-1, -2) * (heads / 12) ** 0.5).softmax(dim=-1)

    mistakes = [
        (lambda x, c, n: scores(x, c, n).softmax(dim=-1), "The scores are not divided by sqrt(d)."),
        (
            lambda x, c, n: (scores(x, c, n) / 12**0.5).softmax(dim=-1),
            "It divides by the root of all channels; d is the width of one head, channels / heads.",
        ),
        (
            lambda x, c, n: (scores(x, c, n) * heads_share(n)).softmax(dim=-1),
            "It divides by d; the equation has its square root.",
        ),
        (
            lambda x, c, n: (scores(x, c, n) * heads_share(n) ** 0.5).softmax(dim=-2),
            "The softmax runs over the positions; each position's row must add up to 1, so it runs over the tokens.",
        ),
        (
            lambda x, c, n: scores(x, c, n) * heads_share(n) ** 0.5,
            "Those are the scores; the softmax over the tokens is still to come.",
        ),
        (
            lambda x, c, n: right(x, c, n).transpose(-1, -2),
            "Rows and columns are swapped: one row per position of x, one column per token of the context.",
        ),
        (
            lambda x, c, n: right(x, c, n).mean(dim=1),
            "It averages over the heads; keep them apart: (b, heads, n, m).",
        ),
        (
            lambda x, c, n: right(x, c, 1).expand(-1, n, -1, -1),
            "All heads are the same: each has its own share of the channels, the first head the first d of them.",
        ),
        (
            reshaped,
            "The heads are cut out of the positions, not of the channels: split the last dimension, then swap "
            "(.unflatten(-1, (heads, -1)).transpose(1, 2)).",
        ),
        (interleaved, "The heads take turns in the channels; each should have d channels in a row."),
    ]

    def heads_share(heads: int) -> float:
        return heads / 12

    cases = [(*draws(1, (2, 6, 12)), *draws(1, (2, 4, 10)), heads) for heads in (3, 2)]
    return compare(lambda x, context, heads: yours(x, context, to_q, to_k, heads), right, cases, mistakes)


# ---- exercise 4 ------------------------------------------------------------------------------------------------


def up_channels(yours: Callable[[Sequence[int], int], Sequence[int]]) -> Verdict:
    """Exercise 4: how many channels each residual block of the way up reads."""

    def reads(
        channels: Sequence[int], layers: int, *, skips: list[int] | None = None, first: bool = False
    ) -> list[int]:
        skips = _skips(channels, layers) if skips is None else skips
        own, found = channels[-1], []
        for width in reversed(channels):
            for _ in range(layers + 1):
                found.append(own + (skips.pop(0) if first else skips.pop()) if skips else own)
                own = width
        return found

    def without_input(channels: Sequence[int], layers: int) -> list[int]:
        return reads(channels, layers, skips=_skips(channels, layers)[1:])

    def without_halvings(channels: Sequence[int], layers: int) -> list[int]:
        return reads(channels, layers, skips=[channels[0], *[c for c in channels for _ in range(layers)]])

    def last_halves(channels: Sequence[int], layers: int) -> list[int]:
        return reads(channels, layers, skips=[*_skips(channels, layers), channels[-1]])

    def own_width(channels: Sequence[int], layers: int) -> list[int]:
        skips, widths = _skips(channels, layers), [c for c in reversed(channels) for _ in range(layers + 1)]
        return [own + skips.pop() for own in widths]

    mistakes = [
        (lambda c, n: _skips(c, n)[::-1], "Those are the skips alone; the block also reads what comes from before."),
        (
            lambda c, n: [2 * width for width in reversed(c) for _ in range(n + 1)],
            "It takes everything as wide as the level. But a level's first block gets its own channels from the "
            "level below, and its last block reads the skip that the level above made while halving.",
        ),
        (
            own_width,
            "The skips are right. But the first block of a level gets its own channels from below, and they are as "
            "many as the level below has.",
        ),
        (lambda c, n: reads(c, n, first=True), "Last in, first out: the way up reads the latest skip first."),
        (without_input, "One skip is missing: conv_in's result is the very first one."),
        (without_halvings, "The halvings are missing: what they return is a skip, too."),
        (last_halves, "The last level does not halve, so it has no skip from a halving."),
        (lambda c, n: reads(c, n)[::-1], "It starts at the top; the way up starts at the smallest size."),
    ]
    cases: list[tuple] = [((320, 640, 1280, 1280), 2), ((48, 96, 144), 1), ((8, 16), 3)]
    return compare(yours, reads, cases, mistakes)


def _skips(channels: Sequence[int], layers: int) -> list[int]:
    """Channels of every skip, in the order in which the way down makes them."""
    skips = [channels[0]]
    for level, width in enumerate(channels):
        skips += [width] * (layers + (level < len(channels) - 1))
    return skips

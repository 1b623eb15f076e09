"""Look inside a running UNet: its stages, its prediction without a skip, and its attention maps. Notebook 02."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ldm_course.blocks import Attention, Downsample, ResnetBlock, Upsample
from ldm_course.errors import InputError
from ldm_course.lab.shared import plots
from ldm_course.model import LatentDiffusion
from ldm_course.unet import SpatialTransformer, UNet, UpBlock

KINDS: dict[type[nn.Module], str] = {
    ResnetBlock: "resnet",
    SpatialTransformer: "transformer",
    Downsample: "down",
    Upsample: "up",
}

# ---- stages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One part of the UNet, as it ran in a real forward pass.

    name: "down_blocks.0.resnets.0" and the like, as `unet.get_submodule` takes it.
    kind: "conv", "resnet", "transformer", "down" (half the size) or "up" (twice the size).
    shape: of what it returned, (channels, height, width).
    own, skip: how many of its input's channels came from the stage before it, and from a skip.
    source: the name of the stage that the skip comes from; None without a skip.
    """

    name: str
    kind: str
    shape: tuple[int, int, int]
    own: int
    skip: int = 0
    source: str | None = None


@torch.no_grad()
def stages(unet: UNet, side: int | None = None) -> list[Stage]:
    """Run the UNet once and list its stages in their order; on the meta device that takes no memory.

    Args:
        side: of the latent; None is that of the training latents.
    """
    config, weight = unet.config, unet.conv_in.weight
    side = side or config.sample_size
    ran: list[tuple[str, str, Tensor, Tensor]] = []  # name, kind, input, output
    skips: dict[str, tuple[str, int]] = {}  # stage -> the source of its skip, and the channels

    def note(name: str, kind: str) -> Callable:
        return lambda module, args, output: ran.append((name, kind, args[0], output))

    def note_skips(name: str) -> Callable:
        def hook(block: UpBlock, args: tuple[Any, ...]) -> None:
            for layer, skip in zip(range(len(block.resnets)), reversed(args[1])):
                (source,) = [stage for stage, _, _, output in ran if output is skip]
                skips[f"{name}.resnets.{layer}"] = source, skip.shape[1]

        return hook

    with ExitStack() as hooks:
        for name, module in unet.named_modules():
            kind = "conv" if name in ("conv_in", "conv_out") else KINDS.get(type(module))
            if kind:
                hooks.enter_context(module.register_forward_hook(note(name, kind)))
            if isinstance(module, UpBlock):
                hooks.enter_context(module.register_forward_pre_hook(note_skips(name)))
        x_t = weight.new_zeros(1, config.in_channels, side, side)
        unet(x_t, 0, weight.new_zeros(1, 77, config.cross_attention_dim))

    found = []
    for name, kind, before, after in ran:
        source, skip = skips.get(name, (None, 0))
        c, h, w = after.shape[1:]
        found.append(Stage(name, kind, (c, h, w), before.shape[1] - skip, skip, source))
    return found


@contextmanager
def cut(unet: UNet, stage: Stage) -> Iterator[None]:
    """Inside, this stage's skip is zero.

    Raises InputError if the stage has no skip.
    """
    if stage.source is None:
        raise InputError(f"{stage.name} has no skip that could be cut; the residual blocks of the up path have one.")

    def without_skip(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        own, skip = args[0].split([stage.own, stage.skip], dim=1)
        return torch.cat([own, torch.zeros_like(skip)], dim=1), *args[1:]

    with unet.get_submodule(stage.name).register_forward_pre_hook(without_skip):
        yield


# ---- attention -------------------------------------------------------------------------------------------------


@contextmanager
def attention_maps(unet: UNet) -> Iterator[dict[str, Tensor]]:
    """Inside `with attention_maps(unet) as maps:`, the weights of each cross-attention are stored.

    After a forward pass `maps[name]` is softmax(q k^T / sqrt(d)) of that module, (b, heads, h*w, 77): the weight of
    each token at each position. The module itself never forms it: its fused kernel returns only the weighted sum of
    the values.
    """
    maps: dict[str, Tensor] = {}

    def store(name: str) -> Callable:
        def hook(attention: Attention, args: tuple[Tensor, Tensor], output: Tensor) -> None:
            x, context = args
            q = attention.split_heads(attention.to_q(x))  # (b, heads, h*w, d)
            k = attention.split_heads(attention.to_k(context))  # (b, heads, 77, d)
            maps[name] = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)

        return hook

    with ExitStack() as hooks:
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                hooks.enter_context(module.register_forward_hook(store(name)))
        yield maps


def token_positions(tokenizer: CLIPTokenizer, text: str, word: str) -> list[int]:
    """The positions of a word's tokens among the 77 of a text.

    Raises InputError if the word is not in the text.
    """
    ids, wanted = tokenizer(text).input_ids, tokenizer(word).input_ids[1:-1]
    for start in range(len(ids)):
        if wanted and ids[start : start + len(wanted)] == wanted:
            return list(range(start, start + len(wanted)))
    raise InputError(f"The word {word!r} is not in {text!r}.")


def word_map(weights: Tensor, positions: Sequence[Sequence[int]], side: int) -> Tensor:
    """The attention to one word of each text, averaged over the heads, as b square maps.

    Args:
        weights: of one module, (b, heads, n, 77), with n a square number.
        positions: of each text's word, b lists.
        side: of the maps; cells become squares, nothing is smoothed.
    Returns (b, side, side).
    """
    shares = weights.mean(dim=1)  # (b, n, 77)
    word = torch.stack([share[:, list(tokens)].sum(dim=1) for share, tokens in zip(shares, positions)])  # (b, n)
    cells = math.isqrt(word.shape[1])
    return F.interpolate(word.view(-1, 1, cells, cells), size=(side, side), mode="nearest")[:, 0]


# ---- one prediction per noise level -----------------------------------------------------------------------------


@torch.no_grad()
def predictions(
    model: LatentDiffusion, z: Tensor, noise: Tensor, context: Tensor, timesteps: Sequence[int]
) -> list[plots.Frame]:
    """The UNet's prediction for one image at many noise levels, without a loop.

    Args:
        z, noise: the scaled latent and the noise that is mixed with it, (1, c, h, w) each.
        context: of its caption, (1, 77, d).
        timesteps: the noise levels.
    Returns frames for `widgets.scrubber`; their distance is that of the estimate x0_hat from z, relative to z's
    length.
    """
    frames = []
    for t in timesteps:
        x_t = model.schedule.add_noise(z, noise, t)
        prediction = model.unet(x_t.to(model.dtype), t, context.to(model.dtype)).float()
        x0_hat, eps = model.schedule.x0_and_eps(prediction, x_t, t)
        images = [plots.latent_image(latent[0]) for latent in (x_t, eps, x0_hat)]
        distance = ((x0_hat - z).norm() / z.norm()).item()
        frames.append(plots.Frame(t, (*images, plots.decoded(model, x0_hat)), distance))
    return frames


def describe_prediction(frame: plots.Frame) -> str:
    """A frame of `predictions` in words."""
    return f"t = {frame.t}. The estimate x0_hat is {frame.distance:.0%} of the true latent's length away from it."

"""Look inside a running UNet, and put parts of your own into it. Notebook 02."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ldm_course import blocks
from ldm_course.blocks import Downsample, ResnetBlock, Upsample
from ldm_course.lab.shared import plots
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.unet import SpatialTransformer, UNet, UpBlock, timestep_embedding

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


# ---- parts of your own -----------------------------------------------------------------------------------------


def way_through(
    unet: UNet,
    x_t: Tensor,
    t: Tensor | int,
    context: Tensor,
    *,
    change: Callable[[list[Tensor]], list[Tensor]] | None = None,
    skip_first: bool = False,
    push_early: bool = False,
) -> Tensor:
    """The UNet's prediction as `UNet.forward` makes it, with the skips in the open.

    change: what to do to the stack of skips before the way up.
    skip_first, push_early: typical mistakes. The skip stands before the features; what is pushed has not been
        through its transformer.
    """
    t = torch.as_tensor(t, device=x_t.device).reshape(-1)
    temb = unet.time_embedding(timestep_embedding(t, unet.config.block_out_channels[0]).to(x_t.dtype))
    h = unet.conv_in(x_t)
    skips = [h]
    down: list[Any] = list(unet.down_blocks)
    up: list[Any] = list(unet.up_blocks)
    for level in down:
        for i, block in enumerate(level.resnets):
            before = h = block(h, temb)
            h = level.attentions[i](h, context) if level.attentions else h
            skips.append(before if push_early else h)
        for halve in level.downsamplers:
            h = halve(h)
            skips.append(h)
    h = unet.mid_block(h, temb, context)
    skips = change(skips) if change else skips
    for level in up:
        for i, block in enumerate(level.resnets):
            skip = skips.pop()
            h = block(torch.cat([skip, h] if skip_first else [h, skip], dim=1), temb)
            h = level.attentions[i](h, context) if level.attentions else h
        for double in level.upsamplers:
            h = double(h)
    return unet.conv_out(F.silu(unet.conv_norm_out(h)))


@contextmanager
def wired(forward: Callable | None = None, attention: Callable | None = None) -> Iterator[None]:
    """Inside, every UNet runs `forward(unet, x_t, t, context)`, and every attention block `attention(q, k, v)`."""
    with ExitStack() as stack:
        if forward is not None:
            way = forward
            stack.enter_context(patch.object(UNet, "forward", lambda self, *args: way(self, *args)))
        if attention is not None:
            functions = SimpleNamespace(**vars(F) | {"scaled_dot_product_attention": attention})
            stack.enter_context(patch.object(blocks, "F", functions))
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # a compiled model ignores the replacement
        yield


def lineup(model: LatentDiffusion) -> list[Image.Image]:
    """ "A dog with glasses" by four broken UNets: see `checks.SUSPECTS`."""

    def without(place: int) -> Callable[[list[Tensor]], list[Tensor]]:
        return lambda skips: [torch.zeros_like(skip) if i == place else skip for i, skip in enumerate(skips)]

    inner = len([stage for stage in stages(model.unet) if stage.source]) - 1
    empty = model.embed([""])
    broken = (
        lambda unet, x_t, t, context: way_through(unet, x_t, torch.full_like(t, 500), context),
        lambda unet, x_t, t, context: way_through(unet, x_t, t, context, change=without(inner)),
        lambda unet, x_t, t, context: way_through(unet, x_t, t, empty.expand(len(x_t), -1, -1)),
        lambda unet, x_t, t, context: way_through(unet, x_t, t, context, change=without(0)),
    )
    images = []
    for forward in broken:
        with wired(forward=forward):
            images.append(txt2img(model, "a dog with glasses", seed=12, num_inference_steps=20, guidance_scale=4.0))
    return images


# ---- one prediction per noise level -----------------------------------------------------------------------------


@torch.no_grad()
def guesses(
    model: LatentDiffusion, x0: Tensor, eps: Tensor, context: Tensor, timesteps: Sequence[int]
) -> list[tuple[Image.Image, ...]]:
    """For each timestep: x_t decoded, the noise that the UNet sees in it, and its guess x0_hat decoded."""
    found: list[tuple[Image.Image, ...]] = []
    for t in timesteps:
        x_t = model.schedule.add_noise(x0, eps, t)
        prediction = model.unet(x_t.to(model.dtype), t, context.to(model.dtype)).float()
        x0_hat, eps_hat = model.schedule.x0_and_eps(prediction, x_t, t)
        found.append((plots.decoded(model, x_t), plots.latent_image(eps_hat[0]), plots.decoded(model, x0_hat)))
    return found

"""Notebook 02: what it defines is what the package does, its exercises' typical mistakes, and the lab it uses."""

from __future__ import annotations

import ast
import io
import math
from dataclasses import replace
from typing import Any

import ipywidgets
import pytest
import torch
import torch.nn.functional as F
from helpers import noise, one_sentence, our_unet, randomise, tiny_unet
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, exercises, python
from torch import nn
from torch.testing import assert_close

from ldm_course import lab
from ldm_course.blocks import Attention, ResnetBlock
from ldm_course.lab.nb02_unet import checks, figures, probes
from ldm_course.model import LatentDiffusion
from ldm_course.unet import SpatialTransformer, UNet, UNetConfig, timestep_embedding

NAME = "02_unet"
FUNCTIONS = ("timestep_embedding", "attention", "resnet", "errors", "lift", "guess")

# ---- what it defines -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """The notebook's classes and its functions that are defined of nothing else."""
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math}
    for cell in cells(NAME, "code"):
        for statement in ast.parse(python(cell)).body:
            wanted = isinstance(statement, ast.FunctionDef) and statement.name in FUNCTIONS
            if wanted or isinstance(statement, ast.ClassDef) and not statement.name.startswith("My"):
                assert statement.name not in namespace, f"{statement.name} is defined twice"
                exec(compile(ast.Module([statement], []), NAME, "exec"), namespace)
    return namespace


def same_weights(mine: nn.Module, theirs: nn.Module) -> nn.Module:
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return mine.eval().requires_grad_(False)


def test_its_time_embedding_is_the_package_s(defined):
    theirs = timestep_embedding(torch.tensor([0, 1, 500, 999]), 48)
    mine = torch.stack([defined["timestep_embedding"](t, 48) for t in (0, 1, 500, 999)])
    assert_close(mine, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("c_in, c_out", [(8, 8), (8, 12)])
def test_its_residual_block_is_the_package_s(defined, c_in, c_out):
    theirs = randomise(ResnetBlock(c_in, c_out, 4, 1e-5, 16), seed=0)
    mine = same_weights(defined["ResnetBlock"](c_in, c_out, 4, 1e-5, 16), theirs)
    assert_close(mine(noise(2, c_in, 5, 7), noise(2, 16, seed=1)), theirs(noise(2, c_in, 5, 7), noise(2, 16, seed=1)))


@pytest.mark.parametrize("context", [None, 10])
def test_its_attention_is_the_package_s(defined, context):
    theirs = randomise(Attention(12, 3, context), seed=0)
    mine = same_weights(defined["Attention"](12, 3, context or 12), theirs)
    x, text = noise(2, 6, 12), noise(2, 4, context, seed=1) if context else noise(2, 6, 12)
    assert_close(mine(x, text), theirs(x, text if context else None))


def test_its_transformer_is_the_package_s(defined):
    config = UNetConfig(norm_num_groups=4, cross_attention_dim=10, attention_head_dim=2)
    theirs = randomise(SpatialTransformer(8, config), seed=0)
    mine = same_weights(defined["SpatialTransformer"](8, config), theirs)
    assert_close(mine(noise(2, 8, 4, 6), noise(2, 5, 10)), theirs(noise(2, 8, 4, 6), noise(2, 5, 10)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "block_out_channels": (12, 24, 24, 36),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "layers_per_block": 2,
        },
    ],
    ids=["two levels", "as Stable Diffusion"],
)
def test_its_unet_is_the_package_s(defined, settings):
    theirs = our_unet(tiny_unet(**settings))
    mine = same_weights(defined["UNet"](theirs.config), theirs)
    x_t, context, t = noise(2, 4, 16, 8), noise(2, 77, 24, seed=1), torch.tensor([3, 980])
    assert_close(mine(x_t, t, context), theirs(x_t, t, context), rtol=1e-3, atol=1e-4)
    assert_close(mine(x_t, 500, context), theirs(x_t, 500, context), rtol=1e-3, atol=1e-4)


def test_its_error_is_that_of_the_noise(defined, model):
    defined["small"] = model
    z, context = noise(3, 4, 8, 8), noise(3, 77, 24, seed=1)
    zero = defined["errors"](lambda x_t, t, context: torch.zeros_like(x_t), z, 500, context)
    assert zero.shape == (3,) and 0.7 < zero.mean() < 1.3


def test_its_guess_is_the_schedule_s(defined, model):
    defined["small"] = model
    x_t, eps = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    for t in (0, 500, 999):
        assert_close(defined["guess"](x_t, eps, t), model.schedule.x0_and_eps(eps, x_t, t)[0])


def test_its_lift_is_one_where_a_map_is_even(defined):
    mask = torch.zeros(2, 4, 4)
    mask[:, :2, :2] = 1
    assert_close(defined["lift"](torch.full((2, 4, 4), 0.3), mask), torch.ones(2))
    assert_close(defined["lift"](mask, mask), torch.full((2,), 4.0))


# ---- exercises -------------------------------------------------------------------------------------------------

WRONG: dict[str, list[tuple[str, str]]] = {
    "time": [
        ("a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.cat([a.sin(), a.cos()], dim=1)", "sines come first"),
        ("a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.stack([a.sin(), a.cos()], dim=2).flatten(1)", "as in the paper"),
        ("a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.stack([a.cos(), a.sin()], dim=2).flatten(1)", "take turns"),
        ("a = t[:, None] * 10_000 ** (torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.cat([a.cos(), a.sin()], dim=1)", "minus is missing"),
        ("a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / dim)\n"
         "    return torch.cat([a.cos(), a.sin()], dim=1)", "divide it by dim/2"),
        ("a = t[:, None] * 10_000 ** (-torch.arange(dim // 2) / (dim // 2 - 1))\n"
         "    return torch.cat([a.cos(), a.sin()], dim=1)", "dim/2 - 1"),
        ("a = t[:, None] / 1000 * 10_000 ** (-torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.cat([a.cos(), a.sin()], dim=1)", "divides t by 1000"),
        ("a = t[:, None] * 2 * torch.pi * 10_000 ** (-torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.cat([a.cos(), a.sin()], dim=1)", "2 pi"),
        ("a = t * 10_000 ** (-torch.arange(dim // 2) / (dim // 2))\n"
         "    return torch.cat([a.cos(), a.sin()])", "shape"),
    ],
    "block": [
        (body.format(head="def forward(self, x, temb=None):", **parts), hint)
        for parts in [
            {
                "first": "h = self.conv1(F.silu(self.norm1(x)))",
                "time": "h = h + self.time_emb_proj(F.silu(temb))[:, :, None, None]",
                "second": "h = self.conv2(F.silu(self.norm2(h)))",
                "end": "return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))",
            }
        ]
        for body, hint in [
            ("{head}\n        {first}\n        {time}\n        {second}\n        return h", "shortcut is missing"),
            ("{head}\n        {first}\n        {second}\n        {end}", "time is missing"),
            ("{head}\n        {first}\n        {second}\n        {time}\n        {end}", "too late"),
            ("{head}\n        {first}\n        h = h + self.time_emb_proj(temb)[:, :, None, None]\n"
             "        {second}\n        {end}", "through a SiLU first"),
            ("{head}\n        h = self.conv1(self.norm1(x))\n        {time}\n        h = self.conv2(self.norm2(h))\n"
             "        {end}", "Without a SiLU"),
            ("{head}\n        h = self.conv1(F.relu(self.norm1(x)))\n        {time}\n"
             "        h = self.conv2(F.relu(self.norm2(h)))\n        {end}", "ReLU"),
            ("{head}\n        h = self.conv1(F.silu(x))\n        {time}\n        h = self.conv2(F.silu(h))\n"
             "        {end}", "norms are missing"),
            ("{head}\n        h = F.silu(self.norm1(self.conv1(x)))\n        {time}\n"
             "        h = F.silu(self.norm2(self.conv2(h)))\n        {end}", "before them"),
            ("{head}\n        {first}\n        {time}\n        {second}\n        return h + x", "self.conv_shortcut"),
            ("{head}\n        {first}\n        {time}\n        {second}\n        {end}", "VAE, which knows no time"),
        ]
    ],
    "map": [
        (f"q, k = to_q(x), to_k(context)\n    d = q.shape[-1] // heads\n    {split}\n    {end}", hint)
        for split, end, hint in [
            (split, end, hint)
            for split in ["q, k = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k))"]
            for end, hint in [
                ("return (q @ k.mT).softmax(dim=-1)", "not divided by sqrt(d)"),
                ("return (q @ k.mT / (d * heads) ** 0.5).softmax(dim=-1)", "width of one head"),
                ("return (q @ k.mT / d).softmax(dim=-1)", "square root"),
                ("return (q @ k.mT / d**0.5).softmax(dim=-2)", "runs over the positions"),
                ("return q @ k.mT / d**0.5", "softmax over the tokens is still to come"),
                ("return (q @ k.mT / d**0.5).softmax(dim=-1).mT", "swapped"),
                ("return (q @ k.mT / d**0.5).softmax(dim=-1).mean(dim=1)", "keep them apart"),
            ]
        ]
        + [
            ("q, k = (y.reshape(len(y), heads, -1, d) for y in (q, k))",
             "return (q @ k.mT / d**0.5).softmax(dim=-1)", "out of the positions"),
            ("q, k = (y.unflatten(-1, (-1, heads)).movedim(-1, 1) for y in (q, k))",
             "return (q @ k.mT / d**0.5).softmax(dim=-1)", "take turns in the channels"),
        ]
    ],
    "channels": [
        ("return [2 * c for c in reversed(channels) for _ in range(layers + 1)]", "as wide as the level"),
        ("skips = [channels[0]] + [c for c in channels for _ in range(layers)]\n    own, reads = channels[-1], []\n"
         "    for c in reversed(channels):\n        for _ in range(layers + 1):\n"
         "            reads.append(own + skips.pop() if skips else own)\n            own = c\n    return reads",
         "halvings are missing"),
        *[
            ("skips = [channels[0]]\n    for i, c in enumerate(channels):\n"
             f"        skips += [c] * (layers + (i < len(channels) - 1))\n    {end}", hint)
            for end, hint in [
                ("return skips[::-1]", "skips alone"),
                ("return [c + skips.pop() for c in reversed(channels) for _ in range(layers + 1)]", "from below"),
                ("own, reads = channels[-1], []\n    for c in reversed(channels):\n"
                 "        for _ in range(layers + 1):\n            reads.append(own + skips.pop(0))\n"
                 "            own = c\n    return reads", "Last in, first out"),
                ("own, reads = channels[-1], []\n    for c in reversed(channels):\n"
                 "        for _ in range(layers + 1):\n            reads.append(own + skips.pop())\n"
                 "            own = c\n    return reads[::-1]", "starts at the top"),
                ("skips, own, reads = skips[1:], channels[-1], []\n    for c in reversed(channels):\n"
                 "        for _ in range(layers + 1):\n            reads.append(own + sum(skips[-1:]))\n"
                 "            skips = skips[:-1]\n"
                 "            own = c\n    return reads", "One skip is missing"),
                ("skips.append(channels[-1])\n    own, reads = channels[-1], []\n    for c in reversed(channels):\n"
                 "        for _ in range(layers + 1):\n            reads.append(own + skips.pop())\n"
                 "            own = c\n    return reads", "last level does not halve"),
            ]
        ],
    ],
}  # fmt: skip


@each_mistake(WRONG)
def test_a_typical_mistake_gets_a_hint_that_names_it(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


def test_a_block_that_is_right_alone_must_be_called(model):
    class Right(ResnetBlock):
        def forward(self, x, temb=None):
            return super().forward(x, temb)

    verdict = checks.resnet_block(Right, model)
    assert verdict.status == "right" and "generated the same image" in verdict.message and len(verdict.images) == 2


def test_the_channels_are_those_of_the_real_unets():
    for config in (UNetConfig(), UNetConfig(layers_per_block=1), UNetConfig(block_out_channels=(32, 64, 128, 256))):
        with torch.device("meta"):
            unet = UNet(config)
        real = [block.conv1.in_channels for level in unet.up_blocks for block in level.resnets]
        verdict = checks.up_channels(eval_solution("channels"))
        assert verdict.status == "right"
        assert eval_solution("channels")(config.block_out_channels, config.layers_per_block) == real


def eval_solution(title: str):
    namespace: dict[str, Any] = {"torch": torch}
    exec(exercises(NAME)[title][1], namespace)
    return namespace["my_up_channels"]


# ---- stages ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unet(model: LatentDiffusion) -> UNet:
    return model.unet


def test_the_stages_are_those_of_a_real_pass(unet):
    found = probes.stages(unet)
    assert [stage.kind for stage in found[:3]] == ["conv", "resnet", "transformer"]
    assert found[0].own == 4 and found[-1].shape == (4, 8, 8) and found[-1].name == "conv_out"
    kinds = [stage.kind for stage in found]
    assert kinds.count("resnet") == sum(isinstance(module, ResnetBlock) for module in unet.modules())
    assert kinds.count("down") == kinds.count("up") == 1


def test_each_skip_is_read_once_last_in_first_out(unet):
    readers = [stage for stage in probes.stages(unet) if stage.source]
    sources = ["conv_in", "down_blocks.0.attentions.0", "down_blocks.0.downsamplers.0", "down_blocks.1.resnets.0"]
    assert [stage.source for stage in readers] == sources[::-1]
    for stage in readers:
        assert stage.own + stage.skip == unet.get_submodule(stage.name).conv1.in_channels


def test_stable_diffusions_stages_cost_nothing():
    with torch.device("meta"):
        unet = UNet(UNetConfig())
    found = probes.stages(unet)
    assert sum(weight.numel() for weight in unet.parameters()) == 859_520_964
    assert [stage.shape for stage in found if stage.kind == "down"] == [(320, 32, 32), (640, 16, 16), (1280, 8, 8)]
    assert len([stage for stage in found if stage.source]) == 12
    assert probes.stages(unet, side=32)[0].shape == (320, 32, 32)


def test_a_cut_skip_is_zero_inside_and_back_outside(unet):
    x_t, context = noise(1, 4, 8, 8), noise(1, 77, 24, seed=1)
    before = unet(x_t, 500, context)
    for stage in [stage for stage in probes.stages(unet) if stage.source]:
        block, read = unet.get_submodule(stage.name), []

        def store(module, args, read=read):
            read.append(args[0])

        with probes.cut(unet, stage), block.norm1.register_forward_pre_hook(store):
            assert (unet(x_t, 500, context) - before).abs().max() > 1e-4
        assert (read[0][:, stage.own :] == 0).all() and (read[0][:, : stage.own] != 0).any()
    assert_close(unet(x_t, 500, context), before)


def test_a_stage_without_a_skip_cannot_be_cut(unet):
    with one_sentence("conv_in", "no skip"), probes.cut(unet, probes.stages(unet)[0]):
        pass


# ---- attention -------------------------------------------------------------------------------------------------


def test_the_maps_are_what_the_attention_computes(unet):
    x_t, context = noise(2, 4, 8, 8), noise(2, 77, 24, seed=1)
    given = {}
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    with layer.register_forward_hook(lambda m, args, out: given.update(x=args[0], out=out)):
        with probes.attention_maps(unet) as maps:
            unet(x_t, 500, context)
    assert len(maps) == sum(name.endswith("attn2") for name, _ in unet.named_modules())
    for weights in maps.values():
        assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    weights = maps["mid_block.attentions.0.transformer_blocks.0.attn2"]
    v = layer.to_v(context).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    assert_close(layer.to_out[0]((weights @ v).transpose(1, 2).flatten(2)), given["out"])
    assert not layer._forward_hooks


def test_the_exercise_s_map_is_the_stored_one(unet):
    namespace: dict[str, Any] = {"torch": torch}
    exec(exercises(NAME)["map"][1], namespace)
    given = {}
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    with layer.register_forward_hook(lambda m, args, out: given.update(args=args)):
        with probes.attention_maps(unet) as maps:
            unet(noise(1, 4, 8, 8), 500, noise(1, 77, 24, seed=1))
    mine = namespace["my_attention_map"](*given["args"], layer.to_q, layer.to_k, layer.heads)
    assert_close(mine, maps["mid_block.attentions.0.transformer_blocks.0.attn2"])


def test_a_word_is_found_among_the_tokens(model):
    assert probes.token_positions(model.tokenizer, "a dog", "dog") == [2, 3, 4]  # here a letter is a token
    with one_sentence("'cat'", "'a dog'"):
        probes.token_positions(model.tokenizer, "a dog", "cat")


def test_a_word_s_map_keeps_its_cells():
    weights = torch.zeros(2, 3, 4, 77)
    weights[0, :, 1, 5] = 0.25
    weights[0, :, 1, 6] = 0.5
    weights[1, 0, 2, 9] = 0.9
    drawn = probes.word_map(weights, [[5, 6], [9]], 4)
    assert drawn.shape == (2, 4, 4)
    assert (drawn[0, :2, 2:] == 0.75).all() and drawn[0].sum() == 4 * 0.75, "upper right quarter"
    assert_close(drawn[1, 2:, :2], torch.full((2, 2), 0.3))


# ---- figures and the widget ------------------------------------------------------------------------------------


def test_the_figures_are_drawn(unet):
    with torch.device("meta"):
        sd = UNet(UNetConfig())
    drawn = [figures.draw_u(probes.stages(each)) for each in (unet, sd)]
    words = [text.get_text() for text in drawn[1].axes[0].texts]
    assert {"64 x 64", "32 x 32", "16 x 16", "8 x 8", "8 x 8\nthe middle"} <= set(words)
    assert words.count("1280+\n1280") == 5 and words.count("1280+\n640") == 2 and words.count("640+\n320") == 2
    drawn.append(figures.over_time(noise(20, 8), "channel"))
    rows = {"no skip": [(9.0, 0.1), (20.0, 0.2)], "no text": [(1.3, 0.01), (1.2, 0.02)]}
    drawn.append(figures.damage(rows, ["t = 50", "t = 900"]))
    for figure in drawn:
        assert Image.open(io.BytesIO(lab.plots.png(figure))).format == "PNG"


def test_a_map_is_laid_over_the_image():
    values = torch.zeros(4, 4)
    values[0, 0] = 2.0
    laid = figures.overlay(Image.new("RGB", (128, 128), "white"), values, 2.0)
    bright, dark = laid.getpixel((5, 5)), laid.getpixel((300, 300))
    assert laid.size == (384, 384) and sum(bright) > sum(dark) and bright[0] > bright[2], "yellow above, blue below"


def test_the_widget_shows_each_noise_level(model):
    z, context = noise(1, 4, 8, 8), noise(1, 77, 24, seed=1)
    frames = probes.predictions(model, z, noise(1, 4, 8, 8, seed=2), context, [0, 500, 999])
    assert [frame.t for frame in frames] == [0, 500, 999] and all(len(frame.images) == 4 for frame in frames)
    assert frames[0].distance < 0.5 < frames[2].distance
    widget = lab.widgets.scrubber(frames, probes.describe_prediction)
    (play, slider), text, picture = widget.children[0].children, *widget.children[1:]
    assert isinstance(play, ipywidgets.Play)
    for i in (2, 1):
        slider.value = i
        assert picture.value == lab.plots.jpeg(lab.plots.strip(frames[i])) and text.value.startswith(
            f"t = {frames[i].t}."
        )


def test_predictions_also_understand_a_network_that_predicts_v(model):
    z, eps = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=2)
    schedule = replace(model.schedule, prediction_type="v_prediction")
    a = schedule.alpha_bar(500)

    class Right(nn.Module):
        config = model.unet.config
        conv_in = model.unet.conv_in

        def forward(self, x_t, t, context):
            return a**0.5 * eps - (1 - a) ** 0.5 * z

    (frame,) = probes.predictions(replace(model, unet=Right(), schedule=schedule), z, eps, noise(1, 77, 24), [500])
    assert frame.distance < 1e-5

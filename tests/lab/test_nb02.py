"""Notebook 02: its definitions, the stages of a UNet, cut skips, attention maps and predictions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import noise, one_sentence, our_unet, randomise, tiny_unet
from lab_helpers import definitions, solution
from torch import nn
from torch.testing import assert_close

from ldm_course import blocks
from ldm_course.lab.nb02_unet import probes
from ldm_course.unet import SpatialTransformer, UNet, UNetConfig, timestep_embedding

NAME = "02_unet"
SMALL = UNetConfig(norm_num_groups=4, cross_attention_dim=10, attention_head_dim=2)
AS_SD = {
    "block_out_channels": (12, 24, 24, 36),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
BLOCKS = [  # class, its arguments, the shapes of its inputs
    (blocks.ResnetBlock, (8, 8, 4, 1e-5, 16), [(2, 8, 5, 7), (2, 16)]),
    (blocks.ResnetBlock, (8, 12, 4, 1e-5, 16), [(2, 8, 5, 7), (2, 16)]),
    (blocks.Attention, (12, 3, 10), [(2, 6, 12), (2, 4, 10)]),
    (blocks.Attention, (12, 3, 12), [(2, 6, 12), (2, 6, 12)]),
    (SpatialTransformer, (8, SMALL), [(2, 8, 4, 6), (2, 5, 10)]),
]


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions(NAME, contexts=None)


@pytest.fixture(scope="module")
def unet(model) -> UNet:
    return model.unet


def same_weights(mine: nn.Module, theirs: nn.Module) -> nn.Module:
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return mine.eval().requires_grad_(False)


def test_its_time_embedding_is_the_package_s(defined):
    mine = torch.stack([defined["timestep_embedding"](t, 48) for t in (0, 1, 500, 999)])
    assert_close(mine, timestep_embedding(torch.tensor([0, 1, 500, 999]), 48), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind, arguments, shapes", BLOCKS)
def test_its_blocks_are_the_package_s(defined, kind, arguments, shapes):
    theirs, inputs = randomise(kind(*arguments), seed=0), [noise(*shape, seed=i) for i, shape in enumerate(shapes)]
    mine = same_weights(defined[kind.__name__](*arguments), theirs)
    assert_close(mine(*inputs), theirs(*inputs))


@pytest.mark.parametrize("settings", [{}, AS_SD], ids=["two levels", "as Stable Diffusion"])
def test_its_unet_is_the_package_s(defined, settings):
    theirs = our_unet(tiny_unet(**settings))
    mine = same_weights(defined["UNet"](theirs.config), theirs)
    x_t, context = noise(2, 4, 16, 8), noise(2, 77, 24, seed=1)
    for t in (torch.tensor([3, 980]), 500):
        assert_close(mine(x_t, t, context), theirs(x_t, t, context), rtol=1e-3, atol=1e-4)


def test_measures_of_known_values(defined, model):
    defined["small"] = model
    x_t, eps, context = noise(3, 4, 8, 8), noise(3, 4, 8, 8, seed=1), noise(3, 77, 24, seed=1)
    zero = defined["errors"](lambda x_t, t, context: torch.zeros_like(x_t), x_t, 500, context)
    assert zero.shape == (3,) and 0.7 < zero.mean() < 1.3, "the noise's own variance"
    for t in (0, 500, 999):
        assert_close(defined["guess"](x_t, eps, t), model.schedule.x0_and_eps(eps, x_t, t)[0])
    mask = torch.zeros(2, 4, 4)
    mask[:, :2, :2] = 1
    assert_close(defined["lift"](torch.full((2, 4, 4), 0.3), mask), torch.ones(2))
    assert_close(defined["lift"](mask, mask), torch.full((2,), 4.0))


# ---- exercises -------------------------------------------------------------------------------------------------


def test_the_channels_are_those_of_the_real_unets():
    for config in (UNetConfig(), UNetConfig(layers_per_block=1), UNetConfig(block_out_channels=(32, 64, 128, 256))):
        with torch.device("meta"):
            real = [block.conv1.in_channels for level in UNet(config).up_blocks for block in level.resnets]
        assert solution(NAME, "channels")(config.block_out_channels, config.layers_per_block) == real


# ---- stages and skips ------------------------------------------------------------------------------------------


def test_the_stages_are_those_of_a_real_pass(unet):
    found = probes.stages(unet)
    assert [stage.kind for stage in found[:3]] == ["conv", "resnet", "transformer"]
    assert found[0].own == 4 and found[-1].shape == (4, 8, 8) and found[-1].name == "conv_out"
    kinds = [stage.kind for stage in found]
    assert kinds.count("resnet") == sum(isinstance(module, blocks.ResnetBlock) for module in unet.modules())
    assert kinds.count("down") == kinds.count("up") == 1
    readers = [stage for stage in found if stage.source]
    sources = ["conv_in", "down_blocks.0.attentions.0", "down_blocks.0.downsamplers.0", "down_blocks.1.resnets.0"]
    assert [stage.source for stage in readers] == sources[::-1], "last in, first out"
    assert all(stage.own + stage.skip == unet.get_submodule(stage.name).conv1.in_channels for stage in readers)


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
    before, read = unet(x_t, 500, context), []
    for stage in [stage for stage in probes.stages(unet) if stage.source]:
        norm = unet.get_submodule(stage.name).norm1
        with probes.cut(unet, stage), norm.register_forward_pre_hook(lambda module, args: read.append(args[0])):
            assert (unet(x_t, 500, context) - before).abs().max() > 1e-4
        assert (read[-1][:, stage.own :] == 0).all() and (read[-1][:, : stage.own] != 0).any()
    assert_close(unet(x_t, 500, context), before)
    with one_sentence("conv_in", "no skip"), probes.cut(unet, probes.stages(unet)[0]):
        pass


# ---- attention -------------------------------------------------------------------------------------------------


def test_the_maps_are_what_the_attention_computes(unet):
    given, context = {}, noise(2, 77, 24, seed=1)
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    with layer.register_forward_hook(lambda m, args, out: given.update(args=args, out=out)):
        with probes.attention_maps(unet) as maps:
            unet(noise(2, 4, 8, 8), 500, context)
    assert len(maps) == sum(name.endswith("attn2") for name, _ in unet.named_modules())
    for weights in maps.values():
        assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    weights = maps["mid_block.attentions.0.transformer_blocks.0.attn2"]
    v = layer.to_v(context).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    assert_close(layer.to_out[0]((weights @ v).transpose(1, 2).flatten(2)), given["out"])
    assert_close(solution(NAME, "map")(*given["args"], layer.to_q, layer.to_k, layer.heads), weights)
    assert not layer._forward_hooks


def test_a_word_s_tokens_and_its_map(model):
    assert probes.token_positions(model.tokenizer, "a dog", "dog") == [2, 3, 4]  # here a letter is a token
    with one_sentence("'cat'", "'a dog'"):
        probes.token_positions(model.tokenizer, "a dog", "cat")
    weights = torch.zeros(2, 3, 4, 77)
    weights[0, :, 1, 5], weights[0, :, 1, 6], weights[1, 0, 2, 9] = 0.25, 0.5, 0.9
    drawn = probes.word_map(weights, [[5, 6], [9]], 4)
    assert drawn.shape == (2, 4, 4)
    assert (drawn[0, :2, 2:] == 0.75).all() and drawn[0].sum() == 4 * 0.75, "upper right quarter"
    assert_close(drawn[1, 2:, :2], torch.full((2, 2), 0.3))


# ---- predictions -----------------------------------------------------------------------------------------------


def test_predictions_are_worse_with_more_noise(model):
    z, context = noise(1, 4, 8, 8), noise(1, 77, 24, seed=1)
    frames = probes.predictions(model, z, noise(1, 4, 8, 8, seed=2), context, [0, 500, 999])
    assert [frame.t for frame in frames] == [0, 500, 999] and all(len(frame.images) == 4 for frame in frames)
    assert frames[0].distance < 0.5 < frames[2].distance
    assert len({probes.describe_prediction(frame) for frame in frames}) == 3


def test_predictions_also_understand_a_network_that_predicts_v(model):
    z, eps = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=2)
    schedule = replace(model.schedule, prediction_type="v_prediction")

    class Right(nn.Module):
        config, conv_in = model.unet.config, model.unet.conv_in

        def forward(self, x_t, t, context):
            return schedule.velocity(z, eps, t)

    (frame,) = probes.predictions(replace(model, unet=Right(), schedule=schedule), z, eps, noise(1, 77, 24), [500])
    assert frame.distance < 1e-5

"""Notebook 02: its definitions, the stages of a UNet, parts put into it, guesses and the tiny training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import noise, our_unet, tiny_unet
from lab_helpers import definitions, exercises, solution
from torch import nn
from torch.testing import assert_close

from ldm_course import blocks
from ldm_course.lab.nb02_unet import checks, figures, liar, probes, training
from ldm_course.pipelines import txt2img
from ldm_course.unet import UNet, UNetConfig, timestep_embedding

NAME = "02_unet"
AS_SD = {
    "block_out_channels": (12, 24, 24, 36),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions(NAME, nn=nn)


@pytest.fixture(scope="module")
def unet(model) -> UNet:
    return model.unet


# ---- definitions -----------------------------------------------------------------------------------------------


def test_sight_counts_what_a_cell_is_connected_to(defined):
    conv = defined["conv"]
    seen = defined["sight"](conv(), side=8)
    assert_close(seen[4, 4] * 64, torch.tensor(9.0))
    assert_close(seen[0, 0] * 64, torch.tensor(4.0))


def test_a_change_that_is_the_mask_is_as_strong_as_can_be(defined):
    mask = torch.zeros(2, 4, 4)
    mask[:, :2, :2] = 1
    assert_close(defined["strength"](torch.full((2, 4, 4), 0.3), mask), torch.ones(2))
    assert_close(defined["strength"](mask, mask), torch.full((2,), 4.0))


@pytest.mark.parametrize("settings", [{}, AS_SD], ids=["two levels", "as Stable Diffusion"])
def test_the_way_through_the_u_is_the_package_s(settings):
    unet = our_unet(tiny_unet(**settings))
    x_t, context = noise(2, 4, 16, 8), noise(2, 77, 24, seed=1)
    namespace = {"torch": torch, "F": torch.nn.functional, "timestep_embedding": timestep_embedding}
    exec(exercises(NAME)["u"][1], namespace)
    for t in (torch.tensor([3, 980]), 500):
        expected = unet(x_t, t, context)
        assert_close(namespace["through_the_u"](unet, x_t, t, context), expected)
        assert_close(probes.way_through(unet, x_t, t, context), expected)


def test_the_clock_is_the_package_s():
    t = torch.arange(0, 1000, 37)
    assert_close(solution(NAME, "time")(t, 48), timestep_embedding(t, 48), atol=1e-3, rtol=0)


# ---- stages ----------------------------------------------------------------------------------------------------


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


def test_features_become_colours(unet):
    image = figures.feature_image(noise(1, 12, 6, 4))
    assert image.shape == (6, 4, 3) and 0 <= image.min() < image.max() <= 1


# ---- parts of your own -----------------------------------------------------------------------------------------


def test_wired_parts_run_inside_and_not_outside(unet):
    x_t, context, ran = noise(1, 4, 8, 8), noise(1, 77, 24, seed=1), []

    def attention(q, k, v):
        ran.append(q.shape)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    before = unet(x_t, 500, context)
    with probes.wired(attention=attention):
        assert_close(unet(x_t, 500, context), before)
    with probes.wired(forward=lambda unet, x_t, t, context: 2 * x_t):
        assert_close(unet(x_t, 500, context), 2 * x_t)
    assert len(ran) == sum(isinstance(module, blocks.Attention) for module in unet.modules())
    assert_close(unet(x_t, 500, context), before)


def test_a_skip_can_be_changed(unet):
    x_t, context = noise(1, 4, 8, 8), noise(1, 77, 24, seed=1)
    for place in range(len([stage for stage in probes.stages(unet) if stage.source])):

        def flip(skips, place=place):
            return [skip.flip(-1) if i == place else skip for i, skip in enumerate(skips)]

        assert not torch.equal(probes.way_through(unet, x_t, 500, context, change=flip), unet(x_t, 500, context))


def test_the_lineup_has_one_image_for_each_suspect(model):
    images = probes.lineup(model)
    assert len(images) == len(checks.SUSPECTS) and len({image.tobytes() for image in images}) == len(images)
    silent = txt2img(model, "", seed=12, num_inference_steps=20, guidance_scale=4.0)
    assert images["ABCD".index(checks.SUSPECTS["hears no text"][0])].tobytes() == silent.tobytes()


# ---- guesses and training --------------------------------------------------------------------------------------


def test_guesses_have_three_images_a_timestep(model):
    found = probes.guesses(model, noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=2), noise(1, 77, 24, seed=1), [0, 500])
    assert [len(images) for images in found] == [3, 3]


def test_the_tiny_world_and_its_error(model):
    x0, context = training.rabbits(model, 12, seed=3)
    assert x0.shape == (12, 4, 8, 8) and context.shape == (12, 77, 24)
    assert torch.equal(context[0], context[6]) and not torch.equal(context[0], context[1])

    class Zero(nn.Module):
        def forward(self, x_t, t, context):
            return torch.zeros_like(x_t)

    assert 0.9 < training.error(Zero(), model) < 1.1, "the noise's own variance"


def test_the_liar_believes_anew_after_each_control(model):
    x0, eps = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    words, level, off, note, image = (widget := liar.liar(model, x0, eps, "a dog")).children
    assert widget.children[0].value == "a dog"
    drawings = [image.value]
    for control, value in ((words, "a cat in the snow"), (level, 900), (off, -300)):
        control.value = value
        drawings.append(image.value)
    assert len(set(drawings)) == 4 and note.value == "t = 900, and it is told t = 600."
    off.value = 400
    assert note.value == "t = 900, and it is told t = 999."

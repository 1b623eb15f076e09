"""Our UNet is diffusers' UNet2DConditionModel: same keys, same shapes, same predictions."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers import noise, our_unet, relative_error, tiny_unet

from ldm_course.unet import UNet, UNetConfig

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
CONFIGS = {
    "attention high": {},
    "attention low, three layers": {
        "layers_per_block": 3,
        "down_block_types": (DOWN, CROSS_DOWN),
        "up_block_types": (CROSS_UP, UP),
    },
    "attention nowhere but in the middle": {"down_block_types": (DOWN, DOWN), "up_block_types": (UP, UP)},
    "attention in the middle of three levels, odd groups": {
        "block_out_channels": (10, 30, 50),
        "down_block_types": (DOWN, CROSS_DOWN, DOWN),
        "up_block_types": (UP, CROSS_UP, UP),
        "layers_per_block": 2,
        "norm_num_groups": 5,
        "attention_head_dim": 5,
        "norm_eps": 1e-4,
    },
    "four levels as in SD 1.5, three groups": {
        "block_out_channels": (12, 24, 24, 36),
        "down_block_types": (CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN),
        "up_block_types": (UP, CROSS_UP, CROSS_UP, CROSS_UP),
        "layers_per_block": 2,
        "norm_num_groups": 3,
        "attention_head_dim": 4,
    },
    "uneven attention on the way down and up": {
        "block_out_channels": (8, 16, 16),
        "down_block_types": (CROSS_DOWN, DOWN, CROSS_DOWN),
        "up_block_types": (UP, UP, CROSS_UP),
    },
}
SIZES = [(1, 8, 8), (3, 16, 8), (2, 13, 7)]  # b, h, w: square, not square, odd


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_same_predictions_as_diffusers(config):
    theirs = tiny_unet(**config)
    ours = our_unet(theirs)
    for b, h, w in SIZES:
        x_t, context = noise(b, 4, h, w), noise(b, 77, 24, seed=1)
        for t in (0, 999, torch.tensor([980, 3, 500])[:b]):
            reference = theirs(x_t, t, context).sample
            assert relative_error(ours(x_t, t, context), reference) <= 1e-5


def test_each_input_matters():
    """Random weights could hide a part that is wired wrongly but does next to nothing: each input must count."""
    ours = our_unet(tiny_unet())
    x_t, context = noise(1, 4, 8, 8), noise(1, 77, 24, seed=1)
    base = ours(x_t, 500, context)
    for other in ((x_t, 520, context), (x_t, 500, noise(1, 77, 24, seed=2)), (x_t + 0.1, 500, context)):
        assert relative_error(ours(*other), base) > 1e-3


def sd15_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)  # diffusers' other defaults are SD 1.5's


def test_full_size_keys_and_shapes():
    with torch.device("meta"):
        ours, theirs = UNet(UNetConfig()), sd15_unet()
    shapes = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    assert shapes == {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert sum(weight.numel() for weight in ours.parameters()) == 859_520_964


@pytest.mark.slow
def test_full_size_forward():
    """SD 1.5's whole UNet on 64 x 64 latents, both modules on the very same 3.4 GB of random weights."""
    with torch.device("meta"):
        ours, theirs = UNet(UNetConfig()).eval(), sd15_unet().eval()
    weights, generator = {}, torch.Generator().manual_seed(0)
    for key, value in theirs.state_dict().items():
        weights[key] = torch.empty(value.shape).uniform_(-1, 1, generator=generator)
        if value.dim() > 1:
            weights[key] *= (3 / value[0].numel()) ** 0.5  # variance 1 / fan-in
    for module in (ours, theirs):
        module.load_state_dict(weights, strict=True, assign=True)
    x_t, context = noise(1, 4, 64, 64), noise(1, 77, 768, seed=1)
    with torch.no_grad():
        reference = theirs(x_t, 981, context).sample
        assert reference.std() > 0.1 and relative_error(ours(x_t, 981, context), reference) <= 1e-5

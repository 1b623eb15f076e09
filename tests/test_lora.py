"""LoRA: equal to peft's on the same weights, merged equal to unmerged, and the given module left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import noise, one_sentence, our_unet, relative_error, tiny_unet
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.testing import assert_close

from ldm_course import lora
from ldm_course.lora import (
    ATTENTION,
    CROSS_ATTENTION,
    LoRALinear,
    add_lora,
    lora_layers,
    lora_parameters,
    merge_lora,
    remove_lora,
    scale_lora,
)
from ldm_course.unet import UNet, UNetConfig

INPUTS = noise(2, 4, 8, 8), torch.tensor([10, 900]), noise(2, 77, 24, seed=1)


@pytest.fixture(scope="module")
def unet() -> UNet:
    return our_unet(tiny_unet())


def taught(unet: nn.Module, seed: int = 0, **how) -> nn.Module:
    """The UNet with a LoRA that has an effect: no matrix is 0."""
    changed = add_lora(unet, **how)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in lora_parameters(changed):
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return changed


# ---- the layer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank, lora_alpha", [(1, 1.0), (4, 4), (3, 7.5)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_equals_peft_s(rank, lora_alpha, bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=bias))
    ours = LoRALinear(copy.deepcopy(model[0]), rank, lora_alpha)
    config = LoraConfig(r=rank, lora_alpha=lora_alpha, target_modules=["0"], init_lora_weights=False)
    theirs = get_peft_model(model, config).base_model.model[0]
    with torch.no_grad():
        ours.lora_A.weight.copy_(theirs.lora_A["default"].weight)
        ours.lora_B.weight.copy_(theirs.lora_B["default"].weight)
    x = noise(2, 3, 6)
    assert relative_error(ours(x), theirs(x)) <= 1e-6
    assert ours.scale == theirs.scaling["default"]
    assert relative_error(ours.merged().weight - ours.base_layer.weight, theirs.get_delta_weight("default")) <= 1e-5

    for layer in (ours, theirs):
        layer(x).square().sum().backward()
    assert relative_error(ours.lora_A.weight.grad, theirs.lora_A["default"].weight.grad) <= 1e-5
    assert relative_error(ours.lora_B.weight.grad, theirs.lora_B["default"].weight.grad) <= 1e-5


def test_a_starts_as_in_peft_and_b_at_zero():
    torch.manual_seed(0)
    ours = LoRALinear(nn.Linear(400, 50), 64, 8)
    theirs = get_peft_model(nn.Sequential(nn.Linear(400, 50)), LoraConfig(r=64, target_modules=["0"]))
    their_a = theirs.base_model.model[0].lora_A["default"].weight
    assert not ours.lora_B.weight.any()
    assert_close(ours.lora_A.weight.std(), their_a.std(), rtol=0.02, atol=0)
    assert ours.lora_A.weight.abs().max() <= 400**-0.5 and their_a.abs().max() <= 400**-0.5


# ---- in the UNet -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [ATTENTION, ("to_k", "to_v"), (*ATTENTION, "ff.net.0.proj", "ff.net.2")])
def test_the_unet_equals_diffusers_with_peft(unet, targets):
    theirs = tiny_unet()
    config = LoraConfig(r=3, lora_alpha=5, target_modules=list(targets), init_lora_weights=False)
    torch.manual_seed(0)
    theirs.add_adapter(config)
    ours = add_lora(unet, rank=3, lora_alpha=5, target_modules=targets)
    their_weights = dict(theirs.named_parameters())
    assert {name for name in their_weights if "lora_" in name} == {
        f"{name}.lora_{half}.default.weight" for name in lora_layers(ours) for half in "AB"
    }
    with torch.no_grad():
        for name, layer in lora_layers(ours).items():
            layer.lora_A.weight.copy_(their_weights[f"{name}.lora_A.default.weight"])
            layer.lora_B.weight.copy_(their_weights[f"{name}.lora_B.default.weight"])
        expected = theirs(*INPUTS).sample
        assert relative_error(unet(*INPUTS), expected) > 0.01, "the LoRA has an effect"
        assert relative_error(ours(*INPUTS), expected) <= 1e-5
        assert relative_error(merge_lora(ours)(*INPUTS), expected) <= 1e-5


def test_a_new_lora_changes_nothing_and_only_it_learns(unet):
    changed = add_lora(unet, rank=2)
    assert torch.equal(changed(*INPUTS), unet(*INPUTS))
    changed(*INPUTS).square().mean().backward()
    learns = [weight for weight in changed.parameters() if weight.grad is not None]
    assert {id(weight) for weight in learns} == {id(weight) for weight in lora_parameters(changed)}
    gradients = {half: [getattr(x, half).weight.grad.abs().max() for x in lora_layers(changed).values()] for half in
                 ("lora_A", "lora_B")}  # fmt: skip
    assert max(gradients["lora_A"]) == 0 < min(gradients["lora_B"]), "B learns first"


def test_the_given_module_stays_and_its_weights_are_shared(unet):
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    changed = taught(unet)
    for other in (changed, merge_lora(changed), remove_lora(changed), scale_lora(changed, 0.5)):
        assert type(other) is UNet and other.training == unet.training
        shared = {id(weight) for weight in unet.parameters()} & {id(weight) for weight in other.parameters()}
        assert len(shared) >= len(list(unet.parameters())) - len(lora_layers(changed))
    assert set(before) == set(unet.state_dict()) and not lora_layers(unet)
    assert all(torch.equal(weight, before[name]) for name, weight in unet.state_dict().items())


def test_merged_scaled_and_removed(unet):
    changed = taught(unet)
    with torch.no_grad():
        plain, full = unet(*INPUTS), changed(*INPUTS)
        merged = merge_lora(changed)
        assert relative_error(merged(*INPUTS), full) <= 1e-5
        assert set(merged.state_dict()) == set(unet.state_dict()) and not lora_layers(merged)
        assert torch.equal(remove_lora(changed)(*INPUTS), plain)
        assert torch.equal(scale_lora(changed, 0)(*INPUTS), plain)
        assert torch.equal(scale_lora(changed, 1)(*INPUTS), full)
        half = scale_lora(scale_lora(changed, 5), 0.1)
        assert relative_error(half(*INPUTS), scale_lora(changed, 0.5)(*INPUTS)) <= 1e-5
        assert torch.equal(changed(*INPUTS), full), "scaling makes a new module"


def test_two_loras_add_up_in_any_order(unet):
    one, other = taught(unet, rank=2), taught(unet, seed=1, rank=3, lora_alpha=1, target_modules=CROSS_ATTENTION)

    def onto(base: nn.Module, of: nn.Module) -> nn.Module:
        layers = {}
        for name, layer in lora_layers(of).items():
            layers[name] = LoRALinear(base.get_submodule(name), layer.lora_A.out_features, 0.0)
            layers[name].lora_A, layers[name].lora_B, layers[name].scale = layer.lora_A, layer.lora_B, layer.scale
        return lora.with_layers(base, layers)

    with torch.no_grad():
        both = onto(one, other)
        assert relative_error(both(*INPUTS), onto(other, one)(*INPUTS)) <= 1e-5
        assert relative_error(merge_lora(both)(*INPUTS), both(*INPUTS)) <= 1e-5
        assert relative_error(merge_lora(both)(*INPUTS), onto(merge_lora(one), other)(*INPUTS)) <= 1e-5
        assert set(lora_layers(both)) == set(lora_layers(one)), "of two in one place, the outer"
        assert torch.equal(remove_lora(remove_lora(both))(*INPUTS), unet(*INPUTS))


def test_a_second_lora_goes_around_the_first_and_not_into_it(unet):
    again = add_lora(add_lora(unet, rank=2), rank=2)
    inner = [name for name, layer in again.named_modules() if isinstance(layer, LoRALinear)]
    assert len(inner) == 2 * len(lora_layers(again)) and not [name for name in inner if "lora_" in name]
    assert len(lora_parameters(again)) == 2 * len(lora_layers(again)), "only the outer one is trained"


def test_half_precision_stays(unet):
    half = copy.deepcopy(unet).half()
    changed = taught(half)
    assert {weight.dtype for weight in changed.parameters()} == {torch.float16}
    assert {weight.dtype for weight in merge_lora(changed).parameters()} == {torch.float16}


def test_stable_diffusion_s_sizes():
    with torch.device("meta"):
        sd15 = UNet(UNetConfig())
    changed = add_lora(sd15, rank=4)
    assert len(lora_layers(changed)) == 16 * 8, "sixteen transformers, each with two attentions of four layers"
    assert sum(weight.numel() for weight in lora_parameters(changed)) == 797_184, "a well-known 3 MB in float32"
    assert lora_layers(changed)["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"].in_features == 768
    out = changed(torch.empty(1, 4, 64, 64, device="meta"), 1, torch.empty(1, 77, 768, device="meta"))
    assert out.shape == (1, 4, 64, 64)


def test_wrong_arguments_get_a_sentence(unet):
    for rank in (0, -1, 2.0, True, "8"):
        with one_sentence("rank", repr(rank)):
            add_lora(unet, rank=rank)
    with one_sentence("'to_x'", "no linear layer"):
        add_lora(unet, target_modules=("to_q", "to_x"))
    with one_sentence("'conv1'"):
        add_lora(unet, target_modules="conv1")

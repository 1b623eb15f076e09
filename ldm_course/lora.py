"""LoRA: small trained matrices beside linear layers that stay as they are. Notebook teach_it.

Hu et al. 2021, https://arxiv.org/abs/2106.09685. Names are those of peft. No function here changes the module that it
is given: each returns a new one that shares the weights of the old one, so it costs no memory but that of LoRA's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from ldm_course.errors import InputError

M = TypeVar("M", bound=nn.Module)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # what diffusers' training scripts teach
CROSS_ATTENTION = tuple(f"attn2.{name}" for name in ATTENTION)


class LoRALinear(nn.Module):
    """W x + b + (lora_alpha / rank) B A x, (..., in_features) to (..., out_features): Hu et al. 2021, eq. 3.

    At first B is 0, so that nothing changes before training.

    Args:
        base_layer: an nn.Linear, or another LoRALinear: then both are added to the same layer.
        rank: how many rows A has, and columns B.
        lora_alpha: the strength is lora_alpha / rank.
    """

    def __init__(self, base_layer: nn.Linear | LoRALinear, rank: int, lora_alpha: float):
        super().__init__()
        self.in_features: int = base_layer.in_features
        self.out_features: int = base_layer.out_features
        weight = next(base_layer.parameters())
        self.base_layer = base_layer
        self.lora_A = nn.Linear(self.in_features, rank, bias=False, device=weight.device, dtype=weight.dtype)
        self.lora_B = nn.Linear(rank, self.out_features, bias=False, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.lora_B.weight)
        self.scale = lora_alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.scale * self.lora_B(self.lora_A(x))

    def merged(self) -> nn.Linear:
        """One linear layer with weight W + (lora_alpha / rank) B A, which computes the same."""
        base = self.base_layer.merged() if isinstance(self.base_layer, LoRALinear) else self.base_layer
        linear = nn.Linear(self.in_features, self.out_features, bias=base.bias is not None, device="meta")
        with torch.no_grad():
            change = self.scale * self.lora_B.weight.float() @ self.lora_A.weight.float()  # (out, in)
            weight = (base.weight.float() + change).to(base.weight.dtype)
        linear.weight, linear.bias = nn.Parameter(weight, requires_grad=False), base.bias
        return linear.train(self.training)


def add_lora(
    module: M, rank: int = 8, lora_alpha: float | None = None, target_modules: Iterable[str] = ATTENTION
) -> M:
    """The module with a new LoRALinear around each linear layer that a target names.

    Args:
        module: a UNet, or any other module.
        rank, lora_alpha: as in LoRALinear; lora_alpha None is the rank, so a strength of 1.
        target_modules: the ends of the layers' names, such as "to_q" or "attn2.to_k".

    Raises InputError if the rank is not 1 or more, or a target names no linear layer.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InputError(f"rank is {rank!r}; it must be a whole number, 1 or more.")
    targets = (target_modules,) if isinstance(target_modules, str) else tuple(target_modules)
    inside = tuple(lora_layers(module))
    layers: dict[str, LoRALinear] = {}
    for target in targets:
        named = {
            name: layer
            for name, layer in module.named_modules()
            if isinstance(layer, (nn.Linear, LoRALinear))
            and f".{name}".endswith(f".{target}")
            and not any(name.startswith(f"{outer}.") for outer in inside)
        }
        if not named:
            raise InputError(f"target_modules has {target!r}, which no linear layer of the model is called.")
        for name, layer in named.items():
            layers[name] = LoRALinear(layer, rank, rank if lora_alpha is None else lora_alpha)
    return with_layers(module, layers)


def lora_layers(module: nn.Module) -> dict[str, LoRALinear]:
    """The LoRALinears of a module by the names of the layers around which they are; of two in one, the outer."""
    found: dict[str, LoRALinear] = {}
    for name, layer in module.named_modules():
        if isinstance(layer, LoRALinear) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = layer
    return found


def lora_parameters(module: nn.Module) -> list[Tensor]:
    """The matrices to train: A and B of every (outer) LoRALinear."""
    return [part.weight for layer in lora_layers(module).values() for part in (layer.lora_A, layer.lora_B)]


def merge_lora(module: M) -> M:
    """The module with plain linear layers again, LoRA computed into their weights: as fast as without LoRA."""
    return with_layers(module, {name: layer.merged() for name, layer in lora_layers(module).items()})


def remove_lora(module: M) -> M:
    """The module without its (outer) LoRA, as before `add_lora`."""
    return with_layers(module, {name: layer.base_layer for name, layer in lora_layers(module).items()})


def scale_lora(module: M, strength: float) -> M:
    """The module with its (outer) LoRA `strength` times as strong: 0 is without, 1 as it is, above 1 exaggerates."""
    layers = {name: copy.copy(layer) for name, layer in lora_layers(module).items()}
    for layer in layers.values():
        layer.scale = strength * layer.scale
    return with_layers(module, layers)


def with_layers(module: M, layers: Mapping[str, nn.Module]) -> M:
    """The module with other layers in the places of these names; all other weights are the module's own."""
    weights = chain(module.parameters(), module.buffers(), *(layer.parameters() for layer in layers.values()))
    changed = copy.deepcopy(module, {id(weight): weight for weight in weights})
    for name, layer in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(changed.get_submodule(parent), child, layer)
    return changed

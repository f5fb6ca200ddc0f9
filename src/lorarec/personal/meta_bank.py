"""A bank of fresh LoRA adapters, to be trained together with the router that mixes them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, StackedLayer, dimensions, linear_layers
from lorarec.personal.config import TARGETS


def meta_loras(
    model: Any, size: int = 8, rank: int = 8, alpha: float = 16, targets: Sequence[str] = TARGETS
) -> AdapterBank:
    """A bank of K meta-LoRAs (RecLoRA, arXiv 2408.03533) in float32, each as PEFT starts one: A Kaiming (from torch's
    generator), B zero.

    Args:
        model: a Hugging Face causal LM.
        size: number K.
        rank: of each.
        alpha: the scale is alpha / rank.
        targets: layers by the last part of their names.

    Raises:
        LorarecError: a size or rank below 1, an alpha that is not a positive number, or a target that no layer has.
    """
    if min(size, rank) < 1 or not 0 < alpha < math.inf:
        raise LorarecError(f"meta-LoRAs need size and rank of at least 1 and alpha above 0: {size}, {rank}, {alpha:g}")
    if not targets:
        raise LorarecError("meta-LoRAs need at least one layer to adapt")
    linear = linear_layers(model)
    found = {name: layer for name, layer in linear.items() if name.rpartition(".")[2] in targets}
    for target in targets:
        if not any(name.rpartition(".")[2] == target for name in found):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise LorarecError(f"the backbone has no linear layer {target}: choose from {known}")
    layers = {}
    for name, layer in found.items():
        width, height = dimensions(layer) or (0, 0)
        a = torch.empty(size, rank, width)
        for each in a:
            nn.init.kaiming_uniform_(each, math.sqrt(5))
        scale = torch.full((size,), alpha / rank)
        layers[name] = StackedLayer(a, torch.zeros(size, height, rank), scale, (rank,) * size)
    transposed = any(isinstance(layer, Conv1D) for layer in found.values())
    config = {"target_modules": list(targets), "fan_in_fan_out": transposed}
    return AdapterBank(layers, size, config, tuple(f"meta-LoRA {number}" for number in range(1, size + 1)))

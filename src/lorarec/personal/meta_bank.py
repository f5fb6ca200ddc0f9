"""A bank of fresh LoRA adapters, to be trained together with the router that mixes them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, StackedLayer, dimensions, text_layers


def meta_loras(
    model: Any,
    num_meta_loras: int = 8,
    r: int = 8,
    lora_alpha: float = 16,
    target_modules: Sequence[str] = ("q_proj", "v_proj"),
) -> AdapterBank:
    """Make a bank of K meta-LoRAs (RecLoRA, arXiv 2408.03533) in float32, each initialized as PEFT does.

    A is drawn by Kaiming's rule from torch's global generator, B is zero.

    Args:
        model: Hugging Face causal LM.
        num_meta_loras: Number K of meta-LoRAs.
        r: Rank of each.
        lora_alpha: Scale of each, multiplied by 1 / r.
        target_modules: Last parts of the names of the adapted layers.

    Raises:
        LorarecError: If a number is out of range, or no layer has one of the names.
    """
    if min(num_meta_loras, r) < 1 or not 0 < lora_alpha < math.inf:
        raise LorarecError(
            "meta-LoRAs need num_meta_loras and r of at least 1 and lora_alpha above 0, "
            f"got {num_meta_loras}, {r}, {lora_alpha:g}"
        )
    if not target_modules:
        raise LorarecError("meta-LoRAs need at least one layer to adapt")
    linear = text_layers(model)
    adapted = {name: layer for name, layer in linear.items() if name.rpartition(".")[2] in target_modules}
    for target in target_modules:
        if not any(name.rpartition(".")[2] == target for name in adapted):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise LorarecError(f"the backbone has no linear layer {target!r}: choose from {known}")
    layers = {}
    for name, layer in adapted.items():
        width, height = dimensions(layer) or (0, 0)
        a = torch.empty(num_meta_loras, r, width)
        for each in a:
            nn.init.kaiming_uniform_(each, math.sqrt(5))
        scale = torch.full((num_meta_loras,), lora_alpha / r)
        layers[name] = StackedLayer(a, torch.zeros(num_meta_loras, height, r), scale, (r,) * num_meta_loras)
    transposed = any(isinstance(layer, Conv1D) for layer in adapted.values())
    config = {"target_modules": list(target_modules), "fan_in_fan_out": transposed}
    names = tuple(f"meta-LoRA {number}" for number in range(1, num_meta_loras + 1))
    return AdapterBank(layers, num_meta_loras, config, names)

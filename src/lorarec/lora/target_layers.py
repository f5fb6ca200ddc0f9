"""What an adapter can sit on: the linear layers of a causal language model, whatever class they have."""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

#: Dtypes in which a layer can hold and compute an adapter's update.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def dimensions(layer: nn.Module) -> tuple[int, int] | None:
    """(input size, output size) of a linear layer (quantised ones and GPT-2's transposed `Conv1D` are some, too)."""
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    return (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else None


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of `model` by module name, without its vocabulary projection.

    The projection is left out because scores read single columns of it, past its forward method.
    """
    output: Any = getattr(model, "get_output_embeddings", lambda: None)
    head = output()
    return {name: layer for name, layer in model.named_modules() if layer is not head and dimensions(layer) is not None}


def is_mergeable(layer: nn.Module) -> bool:
    """Whether a layer is x W^T + b with W as it is stored, so that an update may be added to W.

    Quantised layers are not, and neither are subclasses of `nn.Linear`, which may compute something else, and layers
    whose weights only look like floats (torchao's).
    """
    weight: Any = layer.weight
    return type(layer) in (nn.Linear, Conv1D) and type(weight.data) is torch.Tensor and weight.dtype in DTYPES


def has_8_bit_floats(layer: nn.Module) -> bool:
    """Whether a layer stores its weights in 8-bit or shorter floats, in which an adapter cannot compute."""
    weight: Any = layer.weight
    return weight.is_floating_point() and weight.dtype not in DTYPES


def parent_and_name(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that holds the layer at `path`, and the attribute it is held under."""
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name

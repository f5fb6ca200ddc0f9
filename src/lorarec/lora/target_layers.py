"""The linear layers of a causal language model that an adapter can be added to."""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

#: Data types in which a layer can store and compute an adapter's update.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def dimensions(layer: nn.Module) -> tuple[int, int] | None:
    """Return (input size, output size) of a linear layer, None for any other layer.

    Quantised linear layers and GPT-2's transposed `Conv1D` count as linear layers.
    """
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    return (layer.in_features, layer.out_features) if isinstance(layer, nn.Linear) else None


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a model by module name, without the vocabulary projection.

    The projection is excluded because scores read single columns of it and do not call its forward method.
    """
    output: Any = getattr(model, "get_output_embeddings", lambda: None)
    head = output()
    return {name: layer for name, layer in model.named_modules() if layer is not head and dimensions(layer) is not None}


def is_mergeable(layer: nn.Module) -> bool:
    """Return whether a layer computes x W^T + b with the stored W, so that an update can be added to W.

    Quantised layers do not, nor do subclasses of `nn.Linear`, which may compute something else, nor layers whose
    weights only look like floats (torchao's).
    """
    weight: Any = layer.weight
    return type(layer) in (nn.Linear, Conv1D) and type(weight.data) is torch.Tensor and weight.dtype in DTYPES


def has_8_bit_floats(layer: nn.Module) -> bool:
    """Return whether a layer stores its weights in floats of 8 bits or fewer, in which an adapter cannot compute."""
    weight: Any = layer.weight
    return weight.is_floating_point() and weight.dtype not in DTYPES


def parent_and_name(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds the layer at `path`, and the name of its attribute."""
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name

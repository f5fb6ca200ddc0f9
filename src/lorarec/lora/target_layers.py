"""The linear layers of a causal language model that an adapter can be added to."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

#: Names of layers whose weights a model reads without calling the layer, by model type: an adapter has no effect there.
NOT_CALLED = dict.fromkeys(("falcon_mamba", "jamba", "mamba"), ("dt_proj",)) | {"longcat_flash": ("classifier",)}

#: Names of layers whose weights kernels read in training without calling the layer, by model type: with such kernels an
#: adapter there would not be trained.
READ_BY_KERNELS = dict.fromkeys(("falcon_mamba", "mamba"), ("out_proj", "x_proj")) | dict.fromkeys(
    ("bamba", "falcon_h1", "granitemoehybrid", "mamba2", "nemotron_h", "zamba2"), ("out_proj",)
)

#: Data types in which a layer can store and compute an adapter's update.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def dimensions(layer: nn.Module) -> tuple[int, int] | None:
    """Return (input size, output size) of a linear layer, None for any other layer.

    Quantised linear layers and GPT-2's transposed `Conv1D` count as linear layers. Subclasses of `nn.Linear` that
    belong to one model do not, since they compute something else, such as the choice of experts; Falcon's does.
    """
    if isinstance(layer, Conv1D):
        return layer.nx, layer.nf
    if not isinstance(layer, nn.Linear):
        return None
    if type(layer).__module__.startswith("transformers.models.") and not _is_falcon(layer):
        return None
    return layer.in_features, layer.out_features


def _is_falcon(layer: nn.Module) -> bool:
    """Return whether a layer is Falcon's, which computes x W^T + b in two roundings."""
    return type(layer).__name__ == "FalconLinear"


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a model by module name, without those whose forward method is not called.

    These are the vocabulary projection, of which scores read single columns, and the layers in `NOT_CALLED`.
    """
    output: Any = getattr(model, "get_output_embeddings", lambda: None)
    head = output()
    return {
        name: layer
        for name, layer in model.named_modules()
        if layer is not head and not _is_listed(NOT_CALLED, model, name) and dimensions(layer) is not None
    }


def text_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers that text passes through by module name, to which new adapters are added.

    In a model of several modalities these are the layers of its module `language_model`; an adapter on its encoders of
    images or sound would have no effect. The layers in `READ_BY_KERNELS` are left out, on every device alike.
    """
    layers = {name: layer for name, layer in linear_layers(model).items() if not is_read_by_kernels(model, name)}
    return {name: layer for name, layer in layers.items() if "language_model" in name.split(".")} or layers


def is_read_by_kernels(model: nn.Module, name: str) -> bool:
    """Return whether a layer of this name is one in `READ_BY_KERNELS`."""
    return _is_listed(READ_BY_KERNELS, model, name)


def _is_listed(layers: Mapping[str, tuple[str, ...]], model: nn.Module, name: str) -> bool:
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    return name.rpartition(".")[2] in layers.get(model_type, ())


def is_mergeable(layer: nn.Module) -> bool:
    """Return whether a layer computes x W^T + b with the stored W, so that an update can be added to W.

    Quantised layers do not, nor do subclasses of `nn.Linear`, which may compute something else, nor layers whose
    weights only look like floats (torchao's).
    """
    weight: Any = layer.weight
    plain = type(layer) in (nn.Linear, Conv1D) or _is_falcon(layer)
    return plain and type(weight.data) is torch.Tensor and weight.dtype in DTYPES


def has_8_bit_floats(layer: nn.Module) -> bool:
    """Return whether a layer stores its weights in floats of 8 bits or fewer, in which an adapter cannot compute."""
    weight: Any = layer.weight
    return weight.is_floating_point() and weight.dtype not in DTYPES


def parent_and_name(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Return the module that holds the layer at `path`, and the name of its attribute."""
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name

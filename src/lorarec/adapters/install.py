"""Putting mixed layers into a model, and folding a constant mixture into its weights; both can be undone."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorarec.adapters.bank import DELTAS, AdapterBank
from lorarec.adapters.layers import dimensions, linear_layers, parent_and_name
from lorarec.adapters.mixed_linear import MixedLinear
from lorarec.adapters.peft_io import Adapter
from lorarec.errors import LorarecError


class MixedModel:
    """A model whose adapted layers are `MixedLinear`; as a context manager it takes them out at the end.

    Attributes:
        model: the model, changed in place.
        layers: layer name -> mixed layer.
    """

    def __init__(self, model: Any, layers: dict[str, MixedLinear]) -> None:
        self.model = model
        self.layers = layers

    def set_weights(self, weights: torch.Tensor | Mapping[str, torch.Tensor] | None) -> None:
        """Set the mixture of all layers, or of each by name.

        Args:
            weights: (K,) or (rows, K), or layer name -> such a tensor; None switches the adapters off.
        """
        for name, layer in self.layers.items():
            layer.weights = weights[name] if isinstance(weights, Mapping) else weights

    def remove(self) -> None:
        """Put the original layers back."""
        for name, layer in self.layers.items():
            parent, attribute = parent_and_name(self.model, name)
            setattr(parent, attribute, layer.base_layer)
        self.layers = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def install(model: Any, bank: AdapterBank, combine: str, trainable: bool = False) -> MixedModel:
    """Replace the layers that `bank` adapts by mixed ones, with no weights set.

    A constant mixture is faster folded (`fold`); this is for weights that change or differ by row.

    Args:
        trainable: the bank is trained (see `MixedLinear`).

    Raises:
        LorarecError: the rule is not defined on this bank, or the model lacks a layer.
    """
    bank.require(combine)
    found = _find(model, {name: (layer.a.shape[2], layer.b.shape[1]) for name, layer in bank.layers.items()})
    layers = {name: MixedLinear(found[name], layer, combine, trainable, name) for name, layer in bank.layers.items()}
    for name, layer in layers.items():
        parent, attribute = parent_and_name(model, name)
        setattr(parent, attribute, layer)
    return MixedModel(model, layers)


class Folded:
    """A model with an adapter folded into its weights; `undo` puts the very same weights back."""

    def __init__(self, originals: dict[nn.Module, nn.Parameter], beside: MixedModel) -> None:
        self._originals = originals
        self._beside = beside

    def undo(self) -> None:
        """Restore the original weights, bit by bit."""
        for layer, weight in self._originals.items():
            layer.weight = weight
        self._originals = {}
        self._beside.remove()


def fold(model: Any, adapter: Adapter, reversible: bool = True) -> Folded:
    """Add `scale * B A` to the weights of each adapted layer, so that the adapter costs nothing at inference.

    The weights of a quantised layer cannot hold the sum: there the adapter stays beside the layer.

    Args:
        reversible: keep the original weights in memory for `undo`; without it they are freed layer by layer.

    Raises:
        LorarecError: the model lacks a layer.
    """
    layers = _find(model, {name: (a.shape[1], b.shape[0]) for name, (a, b) in adapter.tensors.items()})
    quantised = [name for name, layer in layers.items() if not layer.weight.is_floating_point()]
    originals = {}
    for name, (a, b) in adapter.tensors.items():
        if name in quantised:
            continue
        layer = layers[name]
        original = layer.weight
        precise = torch.promote_types(original.dtype, torch.float32)
        delta = adapter.scales[name] * (b.to(original.device, precise) @ a.to(original.device, precise))
        delta = delta.T if isinstance(layer, Conv1D) else delta
        # A new parameter instead of an update in place: tied weights elsewhere keep their values.
        folded = (original.detach().to(precise) + delta).to(original.dtype)
        layer.weight = nn.Parameter(folded, requires_grad=original.requires_grad)
        if reversible:
            originals[layer] = original
    return Folded(originals, _beside(model, adapter, quantised))


def _beside(model: Any, adapter: Adapter, names: Sequence[str]) -> MixedModel:
    """Put the adapter's named layers beside those of the model."""
    if not names:
        return MixedModel(model, {})
    part = Adapter({name: adapter.tensors[name] for name in names}, {name: adapter.scales[name] for name in names})
    mixed = install(model, AdapterBank.stack([part]), DELTAS)
    mixed.set_weights(torch.ones(1))
    return mixed


def _find(model: Any, sizes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """The model's layers of these names and (in, out) sizes."""
    layers = linear_layers(model)
    for name, size in sizes.items():
        if name not in layers:
            raise LorarecError(f"the model has no linear layer {name}: the adapter belongs to another backbone")
        if dimensions(layers[name]) != size:
            raise LorarecError(f"the adapter belongs to another backbone: {name} has another size in it")
    return {name: layers[name] for name in sizes}

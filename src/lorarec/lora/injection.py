"""Putting mixed layers into a model, and folding a constant mixture into its weights; both can be undone."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorarec.errors import LorarecError
from lorarec.lora.bank import AdapterBank
from lorarec.lora.combine import DELTAS
from lorarec.lora.mixed_linear import MixedLinear
from lorarec.lora.peft_folder import Adapter
from lorarec.lora.target_layers import dimensions, has_8_bit_floats, is_mergeable, linear_layers, parent_and_name

#: The largest share of an update, in the Frobenius norm, that rounding may take. Rounding to bfloat16 changes weights
#: by 1/600 (root mean square), so updates of a sixtieth of the weights or more are within it.
MAX_ROUNDING_LOSS = 0.1


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


def inject(model: Any, bank: AdapterBank, combine: str, trainable: bool = False) -> MixedModel:
    """Replace the layers that `bank` adapts by mixed ones, with no weights set.

    A constant mixture is faster folded (`merge`); this is for weights that change or differ by row.

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


class MergedModel:
    """A model with an adapter folded into its weights; `undo` puts the very same weights back."""

    def __init__(self, originals: dict[nn.Module, nn.Parameter], beside: MixedModel) -> None:
        self._originals = originals
        self._beside = beside

    def unmerge(self) -> None:
        """Restore the original weights, bit by bit."""
        for layer, weight in self._originals.items():
            layer.weight = weight
        self._originals = {}
        self._beside.remove()


def merge(model: Any, adapter: Adapter, reversible: bool = True) -> MergedModel:
    """Add `scale * B A` to the weights of each adapted layer, so that the adapter costs nothing at inference.

    In layers whose weights cannot hold the sum the adapter stays beside the weights. These are quantised layers, and
    layers where rounding to the weights' type would take more than `MAX_ROUNDING_LOSS` of the update, as in bfloat16 if
    the update is small compared with the weights, or would overflow, as in float16 beyond 65,504.

    Args:
        reversible: keep the original weights in memory for `undo`; without it they are freed layer by layer.

    Raises:
        LorarecError: the model lacks a layer, keeps it in 8-bit floats, or an update is NaN or infinite. A model that
            is folded reversibly keeps its weights then.
    """
    layers = _find(model, {name: (a.shape[1], b.shape[0]) for name, (a, b) in adapter.tensors.items()})
    originals: dict[nn.Module, nn.Parameter] = {}
    beside = []
    for name, layer in layers.items():
        try:
            folded = _sum(name, layer, adapter) if is_mergeable(layer) else None
        except LorarecError:
            MergedModel(originals, MixedModel(model, {})).unmerge()
            raise
        if folded is None:
            beside.append(name)
            continue
        original = layer.weight
        # A new parameter instead of an update in place: tied weights elsewhere keep their values.
        layer.weight = nn.Parameter(folded, requires_grad=original.requires_grad)
        if reversible:
            originals[layer] = original
    return MergedModel(originals, _beside(model, adapter, beside))


def _sum(name: str, layer: Any, adapter: Adapter) -> torch.Tensor | None:
    """The sum of the weights and the update, or None if the weights' type cannot hold it."""
    (a, b), scale, original = adapter.tensors[name], adapter.scales[name], layer.weight.detach()
    precise = torch.promote_types(original.dtype, torch.float32)
    delta = scale * (b.to(original.device, precise) @ a.to(original.device, precise))
    if not delta.sum().isfinite():
        raise LorarecError(f"the adapter's update of {name} is NaN or infinite: train it at a lower rate")
    delta = delta.T if isinstance(layer, Conv1D) else delta
    wanted = original.to(precise) + delta
    folded = wanted.to(original.dtype)
    if original.dtype == precise:
        return folded
    lost = (folded.to(precise) - wanted).norm() / delta.norm()
    return None if lost > MAX_ROUNDING_LOSS or (not lost.isfinite() and delta.any()) else folded


def _beside(model: Any, adapter: Adapter, names: Sequence[str]) -> MixedModel:
    """Put the adapter's named layers beside those of the model."""
    if not names:
        return MixedModel(model, {})
    part = Adapter({name: adapter.tensors[name] for name in names}, {name: adapter.scales[name] for name in names})
    mixed = inject(model, AdapterBank.stack([part]), DELTAS)
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
        if has_8_bit_floats(layers[name]):
            raise LorarecError(
                f"{name} is kept in 8-bit floats, which no adapter can work with: "
                "load the model that it was quantised from"
            )
    return {name: layers[name] for name in sizes}

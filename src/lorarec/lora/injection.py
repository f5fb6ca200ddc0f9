"""Injection of mixed layers into a model, and merging of an adapter into its weights; both are reversible."""

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

#: The largest share of an update, in the Frobenius norm, that may be lost by rounding. Rounding to bfloat16 changes
#: weights by 1/600 (root mean square), so updates of a sixtieth of the weights or more are below the limit.
MAX_ROUNDING_LOSS = 0.1


class MixedModel:
    """A model whose adapted layers are `MixedLinear`; at the end of a `with` block they are removed.

    Attributes:
        model: The model, which is changed in place.
        layers: Layer name -> mixed layer.
    """

    def __init__(self, model: Any, layers: dict[str, MixedLinear]) -> None:
        self.model = model
        self.layers = layers

    def set_weights(self, weights: torch.Tensor | Mapping[str, torch.Tensor] | None) -> None:
        """Set the weights of all layers, or of each layer by its name.

        Args:
            weights: A tensor (K,) or (rows, K), or layer name -> such a tensor; None switches the adapters off.
        """
        for name, layer in self.layers.items():
            layer.weights = weights[name] if isinstance(weights, Mapping) else weights

    def remove(self) -> None:
        """Restore the original layers."""
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
    """Replace the layers that a bank adapts by mixed layers, in which no weights are set yet.

    Use it for weights that change or differ by row; a constant mixture is faster when it is merged (`merge`).

    Args:
        model: The model, which is changed in place.
        bank: The adapters.
        combine: `factors` or `deltas`; see `AdapterBank.to_adapter`.
        trainable: Whether the adapters are trained (see `MixedLinear`).

    Raises:
        LorarecError: The rule is not defined for this bank, or the model does not have a layer.
    """
    bank.require(combine)
    linear = _find(model, {name: (layer.a.shape[2], layer.b.shape[1]) for name, layer in bank.layers.items()})
    layers = {name: MixedLinear(linear[name], layer, combine, trainable, name) for name, layer in bank.layers.items()}
    for name, layer in layers.items():
        parent, attribute = parent_and_name(model, name)
        setattr(parent, attribute, layer)
    return MixedModel(model, layers)


class MergedModel:
    """A model with an adapter merged into its weights; `unmerge` restores the original weights."""

    def __init__(self, originals: dict[nn.Module, nn.Parameter], unmergeable: MixedModel) -> None:
        self._originals = originals
        self._unmergeable = unmergeable

    def unmerge(self) -> None:
        """Restore the original weights, bit by bit."""
        for layer, weight in self._originals.items():
            layer.weight = weight
        self._originals = {}
        self._unmergeable.remove()


def merge(model: Any, adapter: Adapter, reversible: bool = True) -> MergedModel:
    """Add `scale * B A` to the weights of each adapted layer, so that the adapter costs nothing at inference.

    Layers whose weights cannot represent the sum become mixed layers instead. These are quantised layers, and layers
    where rounding to the data type of the weights would lose more than `MAX_ROUNDING_LOSS` of the update, as in
    bfloat16 if the update is small compared with the weights, or would overflow, as in float16 beyond 65,504.

    Args:
        model: The model, which is changed in place.
        adapter: The adapter.
        reversible: Whether the original weights stay in memory for `unmerge`; otherwise they are freed layer by layer.

    Raises:
        LorarecError: The model does not have a layer or stores it in 8-bit floats, or an update is NaN or infinite. If
            `reversible` is set, the model then has its original weights.
    """
    layers = _find(model, {name: (a.shape[1], b.shape[0]) for name, (a, b) in adapter.tensors.items()})
    originals: dict[nn.Module, nn.Parameter] = {}
    unmergeable = []
    for name, layer in layers.items():
        try:
            merged = _sum(name, layer, adapter) if is_mergeable(layer) else None
        except LorarecError:
            MergedModel(originals, MixedModel(model, {})).unmerge()
            raise
        if merged is None:
            unmergeable.append(name)
            continue
        original = layer.weight
        # A new parameter instead of an update in place: tied weights elsewhere keep their values.
        layer.weight = nn.Parameter(merged, requires_grad=original.requires_grad)
        if reversible:
            originals[layer] = original
    return MergedModel(originals, _inject_part(model, adapter, unmergeable))


def _sum(name: str, layer: Any, adapter: Adapter) -> torch.Tensor | None:
    """Return the weights plus the update, or None if the data type of the weights cannot represent the sum."""
    (a, b), scale, original = adapter.tensors[name], adapter.scales[name], layer.weight.detach()
    precise = torch.promote_types(original.dtype, torch.float32)
    delta = scale * (b.to(original.device, precise) @ a.to(original.device, precise))
    if not delta.sum().isfinite():
        raise LorarecError(f"the adapter's update of {name} is NaN or infinite: train it with a lower learning rate")
    delta = delta.T if isinstance(layer, Conv1D) else delta
    exact = original.to(precise) + delta
    merged = exact.to(original.dtype)
    if original.dtype == precise:
        return merged
    lost = (merged.to(precise) - exact).norm() / delta.norm()
    return None if lost > MAX_ROUNDING_LOSS or (not lost.isfinite() and delta.any()) else merged


def _inject_part(model: Any, adapter: Adapter, names: Sequence[str]) -> MixedModel:
    """Inject the named layers of an adapter into a model."""
    if not names:
        return MixedModel(model, {})
    part = Adapter({name: adapter.tensors[name] for name in names}, {name: adapter.scales[name] for name in names})
    mixed = inject(model, AdapterBank.stack([part]), DELTAS)
    # On the device of their layer, so that no forward pass copies them there.
    mixed.set_weights({name: torch.ones(1, device=layer.a.device) for name, layer in mixed.layers.items()})
    return mixed


def _find(model: Any, sizes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Return the model's layers of the given names and (in, out) sizes."""
    layers = linear_layers(model)
    for name, size in sizes.items():
        if name not in layers:
            raise LorarecError(f"the model has no linear layer {name}: the adapter belongs to another backbone")
        if dimensions(layers[name]) != size:
            raise LorarecError(f"the adapter belongs to another backbone: {name} has another size there")
        if has_8_bit_floats(layers[name]):
            raise LorarecError(
                f"{name} is stored in 8-bit floats, in which no adapter can compute: "
                "load the model from which it was quantised"
            )
    return {name: layers[name] for name in sizes}

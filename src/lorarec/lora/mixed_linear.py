"""A linear layer with K adapters that are mixed under weights, which may differ from row to row of a batch."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from lorarec.errors import LorarecError
from lorarec.lora.bank import StackedLayer
from lorarec.lora.combine import FACTORS
from lorarec.scoring import RowModule

#: With fewer tokens per row, gating the stacked bank is faster than combining it for each row (measured on a CPU for 2
#: and 8 adapters of rank 8 and 16 on layers of size 192 and 1024: equal at 4 to 16 tokens, 1.5x slower at 256).
GATE_BELOW = 16


class MixedLinear(RowModule):
    """A linear layer that computes `base(x)` plus the mixture of K LoRA adapters (MoLoRec, arXiv 2502.08271, eqs. 6-8).

    `weights` is None for the base layer alone, (K,) for the same mixture in all rows, or (rows, K) for another mixture
    in each row of x. Gradients flow to `weights`, to x and, if `trainable`, to `a` and `b`. With `factors` and weights
    per row there are two strategies: `merge` combines the adapters for each row, at K r (in + out) operations per row,
    and `gate` weights the outputs of all adapters, at K r (in + out) operations per token. The layer chooses the
    cheaper one unless `strategy` is set.

    Args:
        base: A linear layer, quantised or not, or GPT-2's `Conv1D`.
        layer: The stacked adapters. They are moved to the device of the base layer and, if that computes in floats, to
            its data type.
        combine: `factors` or `deltas` (see `AdapterBank.to_adapter`).
        trainable: Whether the adapters are trained; they then keep their data type, since the steps of an optimizer
            vanish in half precision.
        name: The layer's path in its model, for messages.
    """

    def __init__(
        self, base: nn.Module, layer: StackedLayer, combine: str, trainable: bool = False, name: str = "the layer"
    ) -> None:
        super().__init__()
        self.name = name
        weight: Any = base.weight
        dtype = weight.dtype if weight.is_floating_point() and not trainable else layer.a.dtype
        self.base_layer = base
        self.combine = combine
        self.a = nn.Parameter(layer.a.to(weight.device, dtype), requires_grad=trainable)
        self.b = nn.Parameter(layer.b.to(weight.device, dtype), requires_grad=trainable)
        self.scale: torch.Tensor
        self.register_buffer("scale", layer.scale.to(weight.device, dtype))
        self.weights: torch.Tensor | None = None
        self.strategy = "auto"

    @property
    def weight(self) -> torch.Tensor:
        """The weight of the base layer, whose data type some models read."""
        weight: Any = self.base_layer.weight
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x of shape (..., in) to (..., out).

        With weights per row, x is (rows, ..., in), or (rows x tokens, in) in a model that flattens its batch row by row
        before the layer.

        Raises:
            LorarecError: Weights per row do not fit x, or the layer is one of several experts, which read tokens in
                another order.
        """
        out: torch.Tensor = self.base_layer(x)
        if self.weights is None:
            return out
        weights = self.weights.to(self.a)
        if weights.ndim == 2:
            shape = out.shape
            weights = weights if self.row_index is None else weights[self.row_index]
            rows = self._by_row(x, len(weights))
            return self._mixed(rows, out.reshape(*rows.shape[:2], -1), weights).view(shape)
        return self._mixed(x, out, weights)

    def _by_row(self, x: torch.Tensor, rows: int) -> torch.Tensor:
        """Return x as (rows, tokens, in)."""
        if "experts" in self.name.split("."):
            raise LorarecError(f"{self.name} is one of several experts: it cannot have weights per row")
        fits = len(x) == rows if x.ndim > 2 else len(x) % rows == 0
        if x.ndim < 2 or not fits:
            raise LorarecError(f"weights for {rows} rows do not fit an input of shape {tuple(x.shape)} of {self.name}")
        return x.reshape(rows, -1, x.shape[-1])

    def _mixed(self, x: torch.Tensor, out: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return `out` plus the output of the mixture."""
        inner, b = self._inner(x.to(self.a.dtype), weights, self._gates(weights, x))
        inner, b = inner.to(out.dtype), b.to(out.dtype)
        # The sum is computed in place: the output of the base layer is the largest tensor, and nothing else reads it.
        if b.ndim == 3:
            return out.baddbmm_(inner, b.mT)
        return out.view(-1, out.shape[-1]).addmm_(inner.flatten(0, -2), b.T).view_as(out)

    def _gates(self, weights: torch.Tensor, x: torch.Tensor) -> bool:
        """Return whether the outputs of all adapters are weighted, instead of combining the adapters."""
        if self.combine != FACTORS:
            return True
        if self.strategy != "auto":
            return self.strategy == "gate" and weights.ndim == 2
        return weights.ndim == 2 and x.shape[1] < GATE_BELOW

    def _inner(self, x: torch.Tensor, weights: torch.Tensor, gate: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tensor (..., n), and the matrix (out, n) or (rows, out, n) that maps it to the mixture's output."""
        scaled = weights * self.scale
        if not gate:
            shape = weights.shape[:-1]
            a = (scaled @ self.a.flatten(1)).view(*shape, *self.a.shape[1:])
            return x @ a.mT, (weights @ self.b.flatten(1)).view(*shape, *self.b.shape[1:])
        stacked = linear(x, self.a.flatten(0, 1)).unflatten(-1, self.a.shape[:2])
        gates = scaled[..., None] if weights.ndim == 1 else scaled[:, None, :, None]
        stacked = stacked * gates
        if self.combine == FACTORS:
            stacked = stacked.sum(2, keepdim=True) * weights[:, None, :, None]
        return stacked.flatten(-2), self.b.transpose(0, 1).flatten(1)

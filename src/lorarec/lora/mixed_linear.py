"""The one primitive of lorarec: a linear layer that holds K adapters and mixes them, differently per row if asked."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from lorarec.errors import LorarecError
from lorarec.lora.bank import StackedLayer
from lorarec.lora.combine import FACTORS
from lorarec.scoring import RowModule

#: With fewer tokens per row than this, gating the stacked bank beats merging it for each row (measured on a CPU for
#: 2 and 8 adapters of rank 8 and 16 on layers of 192 and 1024: equal at 4 to 16 tokens, 1.5x slower at 256).
GATE_BELOW = 16


class MixedLinear(RowModule):
    """`base(x)` plus the mixture of K LoRA adapters under the weights set last.

    `weights` is None (the base layer alone), (K,) for all rows alike, or (rows, K) with a mixture of its own for each
    row of x. Gradients flow to `weights`, to x and, if `trainable`, to the bank's `a` and `b`. `factors` with weights
    per row has two ways: merge the bank for each row, K r (in + out) per row, or gate the stacked bank, K r (in + out)
    per token; the layer takes the cheaper one unless `strategy` is `merge` or `gate`.

    Args:
        base: a linear layer, quantised or not, or GPT-2's `Conv1D`.
        layer: the stacked adapters; moved to the base's device and, where it computes in floats, its dtype.
        combine: `factors` or `deltas` (see `AdapterBank.to_adapter`).
        trainable: the bank is trained and keeps its dtype, since an optimiser's steps vanish in half precision.
        name: the layer's path in its model, for messages.
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x of shape (..., in) to (..., out).

        With weights per row x is (rows, ..., in), or (rows x tokens, in) from a model that flattens its batch row by
        row before a layer.

        Raises:
            LorarecError: weights per row that do not fit x, or in a layer that is one of several experts: these see
                tokens in an order of their own.
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
        """x as (rows, tokens, in)."""
        if "experts" in self.name.split("."):
            raise LorarecError(f"{self.name} is one of several experts: it cannot have weights per row")
        fits = len(x) == rows if x.ndim > 2 else len(x) % rows == 0
        if x.ndim < 2 or not fits:
            raise LorarecError(f"weights for {rows} rows do not fit an input of shape {tuple(x.shape)} of {self.name}")
        return x.reshape(rows, -1, x.shape[-1])

    def _mixed(self, x: torch.Tensor, out: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """`out` plus what the mixture makes of x."""
        inner, b = self._inner(x.to(self.a.dtype), weights, self._gates(weights, x))
        inner, b = inner.to(out.dtype), b.to(out.dtype)
        # Added in place: the backbone's output is the largest tensor here and nothing else needs it.
        if b.ndim == 3:
            return out.baddbmm_(inner, b.mT)
        return out.view(-1, out.shape[-1]).addmm_(inner.flatten(0, -2), b.T).view_as(out)

    def _gates(self, weights: torch.Tensor, x: torch.Tensor) -> bool:
        """Whether to gate the stacked bank instead of merging it."""
        if self.combine != FACTORS:
            return True
        if self.strategy != "auto":
            return self.strategy == "gate" and weights.ndim == 2
        return weights.ndim == 2 and x.shape[1] < GATE_BELOW

    def _inner(self, x: torch.Tensor, weights: torch.Tensor, gate: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """(..., n) and the (out, n) or (rows, out, n) matrix that takes it to the mixture's output."""
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

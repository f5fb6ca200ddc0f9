"""The one primitive of lorarec: a linear layer that holds K adapters and mixes them, differently per row if asked."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from lorarec.adapters.bank import FACTORS, Layer
from lorarec.errors import LorarecError

#: With fewer tokens per row than this, gating the stacked bank beats merging it for each row (measured on a CPU for
#: 2 and 8 adapters of rank 8 and 16 on layers of 192 and 1024: equal at 4 to 16 tokens, 1.5x slower at 256).
GATE_BELOW = 16


class MixedLinear(nn.Module):
    """`base(x)` plus the mixture of K LoRA adapters under the weights set last.

    `weights` is None (the base layer alone), (K,) for all rows alike, or (rows, K) with a mixture of its own for each
    row of x. Gradients flow to `weights`, to x and, if `trainable`, to the bank's `a` and `b`. `factors` with weights
    per row has two ways: merge the bank for each row, K r (in + out) per row, or gate the stacked bank, K r (in + out)
    per token; the layer takes the cheaper one unless `strategy` is `merge` or `gate`.

    Args:
        base: a linear layer, quantised or not, or GPT-2's `Conv1D`.
        layer: the stacked adapters; moved to the base's device and, where it computes in floats, its dtype.
        combine: `factors` or `deltas` (see `AdapterBank.merge`).
        trainable: the bank is trained and keeps its dtype, since an optimiser's steps vanish in half precision.
    """

    def __init__(self, base: nn.Module, layer: Layer, combine: str, trainable: bool = False) -> None:
        super().__init__()
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
        """x of shape (..., in), or (rows, tokens, in) when each row has its own weights, to (..., out)."""
        out: torch.Tensor = self.base_layer(x)
        if self.weights is None:
            return out
        weights = self.weights.to(self.a)
        if weights.ndim == 2 and (x.ndim != 3 or x.shape[0] != weights.shape[0]):
            raise LorarecError(f"weights for {weights.shape[0]} rows do not fit an input of shape {tuple(x.shape)}")
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

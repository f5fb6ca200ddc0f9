"""A linear layer with K adapters that are mixed under weights, which may differ from row to row of a batch."""

from typing import Any, Literal

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

Strategy = Literal["gate", "combine", "merge"]


class MixedLinear(RowModule):
    """A linear layer that computes `base(x)` plus the mixture of K LoRA adapters (MoLoRec, arXiv 2502.08271, eqs. 6-8).

    `weights` is None for the base layer alone, (K,) for the same mixture in all rows, or (rows, K) for another mixture
    in each row of x. Gradients flow to `weights`, to x and, if `trainable`, to `a` and `b`. There are three strategies,
    with equal results up to rounding, of which the layer takes the cheapest one unless `strategy` is set. With n = r
    for `factors` and n = K r for `deltas`:

    - `gate` applies all adapters and weights their outputs, at K r (in + out) operations per token.
    - `combine` combines the adapters first, at K r (in + out) operations per mixture, and applies the result, at
      r (in + out) per token. It is defined for `factors`.
    - `merge` adds the mixture's update to the weights of the base layer for this pass, at n in out operations per
      mixture and none per token. It is chosen without gradients and for weights in single precision or better, since
      rounding the sum to half precision would lose a part of the update.

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
        self.strategy: Strategy | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x of shape (..., in) to (..., out).

        With weights per row, x is (rows, ..., in), or (rows x tokens, in) in a model that flattens its batch row by row
        before the layer.

        Raises:
            LorarecError: Weights per row do not fit x, or the layer is one of several experts, which read tokens in
                another order.
        """
        if self.weights is None:
            out: torch.Tensor = self.base_layer(x)
            return out
        weights = self.weights.to(self.a)
        if weights.ndim == 1:
            return self._mixed(x, weights, x.numel() // x.shape[-1])
        weights = weights if self.row_index is None else weights[self.row_index]
        rows = self._by_row(x, len(weights))
        return self._mixed(rows, weights, rows.shape[1]).view(*x.shape[:-1], -1)

    def _by_row(self, x: torch.Tensor, rows: int) -> torch.Tensor:
        """Return x as (rows, tokens, in)."""
        if "experts" in self.name.split("."):
            raise LorarecError(f"{self.name} is one of several experts: it cannot have weights per row")
        fits = len(x) == rows if x.ndim > 2 else len(x) % rows == 0
        if x.ndim < 2 or not fits:
            raise LorarecError(f"weights for {rows} rows do not fit an input of shape {tuple(x.shape)} of {self.name}")
        return x.reshape(rows, -1, x.shape[-1])

    def _mixed(self, x: torch.Tensor, weights: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return the output of the base layer plus that of the mixture, given the number of tokens of each mixture."""
        strategy = self.strategy or self._cheapest(weights, tokens)
        if strategy == "merge":
            return self._merged(x, weights)
        out: torch.Tensor = self.base_layer(x)
        inner, b = self._inner(x.to(self.a.dtype), weights, strategy)
        inner, b = inner.to(out.dtype), b.to(out.dtype)
        # The sum is computed in place: the output of the base layer is the largest tensor, and nothing else reads it.
        if b.ndim == 3:
            return out.baddbmm_(inner, b.mT)
        return out.view(-1, out.shape[-1]).addmm_(inner.flatten(0, -2), b.T).view_as(out)

    def _cheapest(self, weights: torch.Tensor, tokens: int) -> Strategy:
        """Return the strategy for weights (K,) or (rows, K), each mixture of which has so many tokens."""
        columns, rows = self.a.shape[2], self.b.shape[1]
        if self._can_merge() and tokens * (columns + rows) > columns * rows:
            return "merge"
        if self.combine != FACTORS or (weights.ndim == 2 and tokens < GATE_BELOW):
            return "gate"
        return "combine"

    def _can_merge(self) -> bool:
        """Return whether the weights can represent the sum with an update, which no gradient needs."""
        base = self.base_layer
        if torch.is_grad_enabled() or type(base) is not nn.Linear:
            return False
        return base.weight.dtype == self.a.dtype and self.a.dtype in (torch.float32, torch.float64)

    def _merged(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Apply the base layer with the update of the mixture, or of each row's mixture, added to its weights."""
        base: Any = self.base_layer
        if self.combine == FACTORS:
            a, b = self._combined(weights)
        else:
            a = ((weights * self.scale)[..., None, None] * self.a).flatten(-3, -2)
            b = self._stacked_b()
        merged = (b @ a).add_(base.weight)
        if weights.ndim == 1:
            return linear(x, merged, base.bias)
        out = x @ merged.mT
        return out if base.bias is None else out.add_(base.bias)

    def _inner(self, x: torch.Tensor, weights: torch.Tensor, strategy: Strategy) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a tensor (..., n), and the matrix (out, n) or (rows, out, n) that maps it to the mixture's output."""
        if strategy == "combine" and self.combine == FACTORS:
            a, b = self._combined(weights)
            return x @ a.mT, b
        stacked = linear(x, self.a.flatten(0, 1)).unflatten(-1, self.a.shape[:2])
        of_token = weights if weights.ndim == 1 else weights[:, None]
        stacked = stacked * (of_token * self.scale)[..., None]
        if self.combine == FACTORS:
            stacked = stacked.sum(-2, keepdim=True) * of_token[..., None]
        return stacked.flatten(-2), self._stacked_b()

    def _combined(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors (r, in) and (out, r) of the mixture, or (rows, r, in) and (rows, out, r) of each row's."""
        shape = weights.shape[:-1]
        a = ((weights * self.scale) @ self.a.flatten(1)).view(*shape, *self.a.shape[1:])
        return a, (weights @ self.b.flatten(1)).view(*shape, *self.b.shape[1:])

    def _stacked_b(self) -> torch.Tensor:
        """Return the factors B of all adapters side by side (out, K r)."""
        return self.b.transpose(0, 1).flatten(1)

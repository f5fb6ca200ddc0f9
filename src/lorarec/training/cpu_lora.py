"""LoRA layers for training on a CPU, where PEFT's elementwise steps cost more than the products between them.

h = W x + s B A (m * x), m a dropout mask, is one autograd function: the low-rank term is added into W x in place, and
the scale is applied in the low rank. Dropout draws only the places it drops, since drawing a number for every element
takes a CPU longer than the layer.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear

ADAPTER = "default"


def speed_up(model: torch.nn.Module) -> None:
    """Give all plain float32 LoRA layers of a model the forward pass of this module; results stay the same."""
    for layer in model.modules():
        if not isinstance(layer, Linear) or layer.lora_variant:
            continue
        base = layer.base_layer
        if type(base) is torch.nn.Linear and base.weight.dtype == torch.float32:
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def dropped_places(size: int, p: float) -> torch.Tensor:
    """The places in range(size) where independent draws drop an element with probability p, in order.

    The number kept between two dropped ones is geometric: the whole part of an exponential with rate -log(1 - p).
    """
    rate = -torch.log1p(torch.tensor(-p, dtype=torch.float64)).item()
    places = torch.empty(0, dtype=torch.int64)
    end = -1
    while end < size:
        left = (size - end) * p
        gaps = torch.empty(int(left + 6 * left**0.5) + 16).exponential_(rate)
        places = torch.cat([places, end + (gaps.long() + 1).cumsum(0)])
        end = int(places[-1])
    return places[: int(torch.searchsorted(places, size))]


class LoraProduct(torch.autograd.Function):
    """W x + bias + scale * B A (x with some places set to zero), for frozen W and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dropped: torch.Tensor | None,
    ) -> torch.Tensor:
        """x: (..., in); weight: (out, in); a: (rank, in); b: (out, rank); dropped: flat places in x."""
        rows = x.reshape(-1, x.shape[-1])
        low = _without(rows, dropped) @ a.T
        out = torch.nn.functional.linear(rows, weight, bias).addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, low, dropped)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, a and b."""
        rows, weight, a, b, low, dropped = ctx.saved_tensors
        shape, grad = grad.shape, grad.reshape(-1, grad.shape[-1])
        grad_low = (grad @ b).mul_(ctx.scale)
        grad_a = grad_low.T @ _without(rows, dropped)
        grad_b = (grad.T @ low).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_low @ a
            if dropped is not None:
                grad_x.view(-1).index_fill_(0, dropped, 0.0)
            grad_x = grad_x.addmm_(grad, weight).view(*shape[:-1], -1)
        return grad_x, None, None, grad_a, grad_b, None, None


def _without(rows: torch.Tensor, dropped: torch.Tensor | None) -> torch.Tensor:
    if dropped is None:
        return rows
    return rows.clone().view(-1).index_fill_(0, dropped, 0.0).view(rows.shape)


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """In place of the forward method of PEFT's `Linear`, for its one trained adapter."""
    p = getattr(layer.lora_dropout[ADAPTER], "p", 0.0) if layer.training else 0.0
    return LoraProduct.apply(  # type: ignore[no-untyped-call]
        x,
        layer.base_layer.weight,
        layer.base_layer.bias,
        layer.lora_A[ADAPTER].weight,
        layer.lora_B[ADAPTER].weight,
        layer.scaling[ADAPTER] / (1 - p),
        dropped_places(x.numel(), p) if p else None,
    )

"""LoRA layers for training on a CPU, where PEFT's elementwise operations take longer than its matrix products.

h = W x + s B A (m * x), with a dropout mask m, is one autograd function: the low-rank term is added to W x in place and
the scale is applied in the low rank. Dropout draws only the positions that it drops, since drawing a number for every
element takes longer on a CPU than the layer.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear

ADAPTER = "default"


def speed_up(model: torch.nn.Module) -> None:
    """Replace the forward method of all plain float32 LoRA layers of a model; results stay the same."""
    for layer in model.modules():
        if type(layer) is not Linear or layer.lora_variant:  # layers of quantized weights are derived from it
            continue
        base = layer.base_layer
        if type(base) is torch.nn.Linear and base.weight.dtype == torch.float32:
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def dropped_positions(size: int, p: float) -> torch.Tensor:
    """Return the sorted positions in range(size) that are dropped, each independently with probability p.

    The gaps between dropped positions have a geometric distribution, the integer part of an exponential distribution
    with rate -log(1 - p).
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
    """W x + bias + scale * B A (x with some positions set to zero), for frozen W and bias."""

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
        """Compute the output for x (..., in), weight (out, in), a (r, in), b (out, r); `dropped` indexes flat x."""
        rows = x.reshape(-1, x.shape[-1])
        low = _without(rows, dropped) @ a.T
        # The result is no view: some models change it in place, which autograd refuses for a view that a function made.
        out = x.new_empty(*x.shape[:-1], len(weight))
        flat = out.view(-1, len(weight))
        if bias is None:
            torch.mm(rows, weight.T, out=flat)
        else:
            torch.addmm(bias, rows, weight.T, out=flat)
        flat.addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(rows, weight, a, b, low, dropped)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, a and b."""
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
    """Compute the forward pass of PEFT's `Linear` for its one trained adapter."""
    p = getattr(layer.lora_dropout[ADAPTER], "p", 0.0) if layer.training else 0.0
    return LoraProduct.apply(  # type: ignore[no-untyped-call]
        x,
        layer.base_layer.weight,
        layer.base_layer.bias,
        layer.lora_A[ADAPTER].weight,
        layer.lora_B[ADAPTER].weight,
        layer.scaling[ADAPTER] / (1 - p),
        dropped_positions(x.numel(), p) if p else None,
    )

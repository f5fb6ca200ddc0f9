"""The router of RecLoRA, which maps a representation of (user, target) to a mixture for every adapted layer."""

import math

import torch
from torch import nn

from lorarec.errors import LorarecError

HIDDEN, DROPOUT = 60, 0.1


class Router(nn.Module):
    """Map representations to mixtures by a small network per layer, in one batched product (RecLoRA, arXiv 2408.03533).

    For each layer: LayerNorm -> Linear(input_size, 60) -> ReLU -> Dropout(0.1) -> Linear(60, K) -> softmax of the
    logits over the temperature.

    Args:
        layers: Number of adapted layers.
        input_size: Size of a representation.
        size: Number K of adapters.
        temperature: Temperature of the softmax, above 0; a higher one gives more even weights.

    Attributes:
        mean: Weights (layers, K) for users without a representation; even until they are set.

    Raises:
        LorarecError: If a size is below 1 or the temperature is not a positive number.
    """

    def __init__(self, layers: int, input_size: int, size: int, temperature: float = 1.0) -> None:
        super().__init__()
        if min(layers, input_size, size) < 1:
            raise LorarecError(
                f"a router needs sizes of at least 1, got {layers} layers, input_size {input_size}, {size} adapters"
            )
        if not 0 < temperature < math.inf:
            raise LorarecError(f"the temperature must be a positive number, got {temperature:g}")
        self.input_size = input_size
        self.size = size
        self.temperature = temperature
        self.norm_weight = nn.Parameter(torch.ones(layers, 1, input_size))
        self.norm_bias = nn.Parameter(torch.zeros(layers, 1, input_size))
        self.hidden_weight, self.hidden_bias = _linears(layers, input_size, HIDDEN)
        self.out_weight, self.out_bias = _linears(layers, HIDDEN, size)
        self.dropout = nn.Dropout(DROPOUT)
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.full((layers, size), 1 / size))

    def forward(self, representation: torch.Tensor) -> torch.Tensor:
        """Map representations (batch, input_size) to weights (layers, batch, K) on the simplex.

        Raises:
            LorarecError: If the shape is not (batch, input_size), or values are not finite.
        """
        if representation.ndim != 2 or representation.shape[1] != self.input_size:
            raise LorarecError(
                f"the router reads representations of shape (batch, {self.input_size}), "
                f"got {tuple(representation.shape)}"
            )
        if not representation.isfinite().all():
            raise LorarecError("a representation holds NaN or infinite values")
        # Only scale and shift of the LayerNorm differ from layer to layer.
        normal = nn.functional.layer_norm(representation.to(self.norm_weight), (self.input_size,))
        hidden = torch.baddbmm(self.hidden_bias, normal * self.norm_weight + self.norm_bias, self.hidden_weight)
        logits = torch.baddbmm(self.out_bias, self.dropout(hidden.relu()), self.out_weight)
        return (logits / self.temperature).softmax(-1)


def _linears(layers: int, input_size: int, height: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return weights (layers, input_size, height) and biases (layers, 1, height), initialized as in `nn.Linear`."""
    bound = input_size**-0.5
    weight = torch.empty(layers, input_size, height).uniform_(-bound, bound)
    return nn.Parameter(weight), nn.Parameter(torch.empty(layers, 1, height).uniform_(-bound, bound))

"""eSASRec (Tikhonovich et al., RecSys 2025, arXiv 2508.06450): causal self-attention in gated LiGR layers."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class ESASRecEncoder(SequenceEncoder):
    """LiGR layers (arXiv 2502.03417) with one attention head, and a final layer norm, as in `SASRecEncoder`."""

    def __init__(self, hidden_size: int, max_history: int, num_layers: int, dropout: float) -> None:
        super().__init__(hidden_size, max_history, num_layers, dropout)
        self.places = nn.Embedding(max_history, hidden_size)
        nn.init.normal_(self.places.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(LiGRLayer(hidden_size, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See `SequenceEncoder.forward`."""
        states = self.dropout(states + self.places.weight[: states.shape[1]])
        for layer in self.layers:
            states = layer(states)
        return self.norm(states)


class LiGRLayer(nn.Module):
    """Self-attention and a SwiGLU feed-forward network, each added to its input through a gate.

    For either part f, the layer adds sigmoid(G x) * f(LayerNorm(x)) to its input x; G is a linear map of its own.

    Args:
        hidden_size: Size of the states.
        dropout: Dropout probability in training.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.attention = _CausalAttention(hidden_size, dropout)
        self.feed_forward = _SwiGLU(hidden_size, 4 * hidden_size, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Transform states (batch, length, hidden_size)."""
        parts = (self.attention, self.feed_forward)
        for part, norm, gate in zip(parts, self.norms, self.gates, strict=True):
            states = states + gate(states).sigmoid() * self.dropout(part(norm(states)))
        return states


class _CausalAttention(nn.Module):
    """Attention of each position to itself and those before it, with one head."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.inward = nn.Linear(hidden_size, 3 * hidden_size)
        self.outward = nn.Linear(hidden_size, hidden_size)
        self.dropout = dropout

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        query, key, value = self.inward(states).chunk(3, dim=-1)
        dropout = self.dropout if self.training else 0.0
        return self.outward(scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True))


class _SwiGLU(nn.Module):
    """The feed-forward network W3(silu(W1 x) * W2 x) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, inner_size: int, dropout: float) -> None:
        super().__init__()
        self.inward = nn.Linear(hidden_size, 2 * inner_size, bias=False)
        self.outward = nn.Linear(inner_size, hidden_size, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate, value = self.inward(states).chunk(2, dim=-1)
        return self.outward(self.dropout(silu(gate) * value))

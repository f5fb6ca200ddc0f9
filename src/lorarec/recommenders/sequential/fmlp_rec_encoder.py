"""FMLP-Rec (Zhou et al., WWW 2022): learnable filters in the frequency domain instead of attention."""

import torch
from torch import nn
from torch.nn.functional import pad

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class FMLPRecEncoder(SequenceEncoder):
    """Blocks of a filter and a feed-forward network over a history that is padded on the left to a fixed length.

    Multiplication in the frequency domain is circular convolution, by which every position sees all others. A pass
    therefore predicts the next item after the last position only.
    """

    causal = False

    def __init__(self, hidden_size: int, max_history: int, num_layers: int, dropout: float) -> None:
        super().__init__(hidden_size, max_history, num_layers, dropout)
        self.places = nn.Embedding(max_history, hidden_size)
        nn.init.normal_(self.places.weight, std=0.02)
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(hidden_size, max_history, dropout) for _ in range(num_layers))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See `SequenceEncoder.forward`."""
        states = pad(states, (0, 0, self.max_history - states.shape[1], 0))
        states = self.dropout(self.norm(states + self.places.weight))
        *before, last = self.blocks
        for block in before:
            states = block(states)
        return last(states, only_last=True)


class _Block(nn.Module):
    """A filter and a feed-forward network, each with dropout, a residual connection and a layer norm (section 3.2)."""

    def __init__(self, hidden_size: int, max_history: int, dropout: float) -> None:
        super().__init__()
        # Real and imaginary parts are stored as real numbers, which optimizers and files support.
        self.filter = nn.Parameter(torch.randn(max_history // 2 + 1, hidden_size, 2) * 0.02)
        self.mix = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.GELU(), nn.Linear(4 * hidden_size, hidden_size)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, only_last: bool = False) -> torch.Tensor:
        """Transform states (batch, max_history, hidden_size); with `only_last`, return the last position only."""
        filtered = self._filtered_last(states) if only_last else self._filtered(states)
        states = self.norms[0]((states[:, -1:] if only_last else states) + self.dropout(filtered))
        return self.norms[1](states + self.dropout(self.mix(states)))

    def _filtered(self, states: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(states, dim=1, norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft(spectrum, states.shape[1], dim=1, norm="ortho")

    def _filtered_last(self, states: torch.Tensor) -> torch.Tensor:
        """Return the last position of `_filtered`, computed as a convolution, which is much cheaper."""
        kernel = torch.fft.irfft(torch.view_as_complex(self.filter), states.shape[1], dim=0)
        return (states * kernel.flip(0)).sum(1, keepdim=True)

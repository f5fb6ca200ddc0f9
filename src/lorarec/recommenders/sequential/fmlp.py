"""FMLP-Rec (Zhou et al., WWW 2022): learnable filters in the frequency domain in place of attention."""

import torch
from torch import nn
from torch.nn.functional import pad

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class FMLPRec(SequenceEncoder):
    """Blocks of a filter and a feed-forward network over a history filled up in front to a fixed length.

    Multiplication in the frequency domain is circular convolution, by which every place sees all others; so a pass
    says what follows after the last place alone.
    """

    causal = False

    def __init__(self, width: int, longest: int, depth: int, dropout: float) -> None:
        super().__init__(width, longest, depth, dropout)
        self.places = nn.Embedding(longest, width)
        nn.init.normal_(self.places.weight, std=0.02)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, longest, dropout) for _ in range(depth))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = pad(states, (0, 0, self.longest - states.shape[1], 0))
        states = self.dropout(self.norm(states + self.places.weight))
        *before, last = self.blocks
        for block in before:
            states = block(states)
        return last(states, only_last=True)


class _Block(nn.Module):
    """Section 3.2: filter, then feed-forward network, each with dropout, a shortcut and a layer norm."""

    def __init__(self, width: int, longest: int, dropout: float) -> None:
        super().__init__()
        # Real and imaginary parts lie side by side, since optimisers and files know real numbers.
        self.filter = nn.Parameter(torch.randn(longest // 2 + 1, width, 2) * 0.02)
        self.mix = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: torch.Tensor, only_last: bool = False) -> torch.Tensor:
        """(batch, longest, width) to the same, or to (batch, 1, width): the last place alone, for far less work."""
        filtered = self._filtered_last(states) if only_last else self._filtered(states)
        states = self.norms[0]((states[:, -1:] if only_last else states) + self.dropout(filtered))
        return self.norms[1](states + self.dropout(self.mix(states)))

    def _filtered(self, states: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(states, dim=1, norm="ortho") * torch.view_as_complex(self.filter)
        return torch.fft.irfft(spectrum, states.shape[1], dim=1, norm="ortho")

    def _filtered_last(self, states: torch.Tensor) -> torch.Tensor:
        """The last place of `_filtered`, as the convolution that it is."""
        kernel = torch.fft.irfft(torch.view_as_complex(self.filter), states.shape[1], dim=0)
        return (states * kernel.flip(0)).sum(1, keepdim=True)

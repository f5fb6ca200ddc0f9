"""GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network reads the history in order."""

import torch
from torch import nn

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class GRU4Rec(SequenceEncoder):
    """Gated recurrent layers; what they hold after a place is mapped back to the width of the item vectors.

    Args:
        state: size of their state.
    """

    def __init__(self, width: int, longest: int, depth: int, dropout: float, state: int = 128) -> None:
        super().__init__(width, longest, depth, dropout)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = nn.GRU(width, state, depth, batch_first=True)
        self.back = nn.Linear(state, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.back(self.recurrent(self.dropout(states))[0])

"""GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network over the history."""

import torch
from torch import nn

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder


class GRU4RecEncoder(SequenceEncoder):
    """Gated recurrent layers, whose states are projected to the size of the item vectors.

    Args:
        hidden_size: Size of the item vectors.
        max_history: Number of items of a history that are read, the latest.
        num_layers: Number of recurrent layers.
        dropout: Dropout probability in training.
        state_size: Size of the recurrent state.
    """

    def __init__(
        self, hidden_size: int, max_history: int, num_layers: int, dropout: float, state_size: int = 128
    ) -> None:
        super().__init__(hidden_size, max_history, num_layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = nn.GRU(hidden_size, state_size, num_layers, batch_first=True)
        self.back = nn.Linear(state_size, hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See `SequenceEncoder.forward`."""
        return self.back(self.recurrent(self.dropout(states))[0])

"""The common interface of encoders of interaction histories."""

import torch
from torch import nn


class SequenceEncoder(nn.Module):
    """Encode the item vectors of a history.

    Args:
        hidden_size: Size of the item vectors.
        max_history: Number of items of a history that are read, the latest.
        num_layers: Number of layers.
        dropout: Dropout probability in training.

    Attributes:
        causal: Whether a position sees only those before it. If so, one pass predicts the next item at every position,
            and histories are padded on the right. If not, a pass predicts the next item after the last position only,
            and histories are padded on the left.
        max_history: Number of items of a history that are read.
    """

    causal = True

    def __init__(self, hidden_size: int, max_history: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.max_history = max_history

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return predictions of the vector of the next item.

        Args:
            states: Item vectors (batch, length, hidden_size), oldest first, zeros in padding; length is at most
                `max_history`.

        Returns:
            Predictions (batch, length, hidden_size) after each position, or (batch, 1, hidden_size) after the last
            position if the encoder is not causal.
        """
        raise NotImplementedError

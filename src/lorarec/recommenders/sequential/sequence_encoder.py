"""The one face of all readers of a history."""

import torch
from torch import nn


class SequenceEncoder(nn.Module):
    """Reads the vectors of a history's items.

    Args:
        width: of the vectors.
        longest: the latest items that are read.
        depth: layers.
        dropout: in training.

    Attributes:
        causal: whether a place sees only those before it. If so, one pass says what follows after every place, and
            histories are filled up behind; if not, a pass says what follows after the last place alone, and histories
            are filled up in front.
        longest: the latest items that are read.
    """

    causal = True

    def __init__(self, width: int, longest: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.longest = longest

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) item vectors, zeros where there is no item, oldest first, length at most `longest`.

        Returns:
            (batch, length, width) what follows after each place, or (batch, 1, width) after the last if not causal.
        """
        raise NotImplementedError

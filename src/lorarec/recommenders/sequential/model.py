"""From a history to the next item: vectors of items, and what reads a history of them."""

from collections.abc import Sequence as Listing

import numpy as np
import torch
from torch import nn

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder

#: Fills up histories; no item has this number.
PADDING = -1


class ItemEmbeddings(nn.Module):
    """Vectors of items."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """(...) item numbers to (..., width)."""
        raise NotImplementedError

    def all(self) -> torch.Tensor:
        """(items, width) the vectors of all."""
        raise NotImplementedError


class IdEmbeddings(ItemEmbeddings):
    """A vector of its own for each item, drawn so that inner products of two have variance 1 / width."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        # Sparse gradients: a step costs as much for a million items as for a thousand.
        self.table = nn.Embedding(items, width, sparse=True)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.table(numbers)

    def all(self) -> torch.Tensor:
        return self.table.weight


class NextItemModel(nn.Module):
    """A history becomes a vector whose inner products with the item vectors are the logits of the next item.

    Args:
        items: vectors of items.
        sequence: reads the vectors of a history.
    """

    def __init__(self, items: ItemEmbeddings, sequence: SequenceEncoder) -> None:
        super().__init__()
        self.items = items
        self.sequence = sequence

    def forward(self, histories: torch.Tensor) -> torch.Tensor:
        """(batch, length) item numbers, oldest first, filled up with `PADDING`; see `SequenceEncoder.forward`."""
        vectors = self.items(histories.clamp(min=0))
        return self.sequence(vectors * (histories != PADDING)[..., None])

    def filled(self, histories: Listing[np.ndarray]) -> torch.Tensor:
        """(batch, length of the longest) histories as the sequence wants them filled up."""
        side = "right" if self.sequence.causal else "left"
        rows = [torch.from_numpy(history) for history in histories]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING, padding_side=side)

    @torch.no_grad()
    def queries(self, histories: Listing[np.ndarray]) -> torch.Tensor:
        """(histories, width): what comes after histories of one item or more; the latest places are read."""
        latest = [history[-self.sequence.longest :] for history in histories]
        states = self(self.filled(latest))
        last = torch.tensor([len(history) - 1 if self.sequence.causal else 0 for history in latest])
        return states[torch.arange(len(latest)), last]

"""Next-item models: item embeddings and an encoder of histories."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from lorarec.recommenders.sequential.sequence_encoder import SequenceEncoder

#: Number that pads histories. No item has it.
PADDING = -1


class ItemEmbeddings(nn.Module):
    """Base class of embeddings of items."""

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Return the vectors (..., hidden_size) of item numbers (...)."""
        raise NotImplementedError

    def all(self) -> torch.Tensor:
        """Return the vectors (items, hidden_size) of all items."""
        raise NotImplementedError


class IdEmbeddings(ItemEmbeddings):
    """A learned vector per item, initialised such that inner products of two have variance 1 / hidden_size."""

    def __init__(self, items: int, hidden_size: int) -> None:
        super().__init__()
        # Sparse gradients: the cost of a step does not depend on the number of items.
        self.table = nn.Embedding(items, hidden_size, sparse=True)
        nn.init.normal_(self.table.weight, std=hidden_size**-0.5)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """See `ItemEmbeddings.forward`."""
        return self.table(items)

    def all(self) -> torch.Tensor:
        """See `ItemEmbeddings.all`."""
        return self.table.weight


class NextItemModel(nn.Module):
    """Encode a history as a vector whose inner products with the item vectors are the logits of the next item.

    Args:
        items: Item embeddings.
        sequence: Encoder of the item vectors of a history.
    """

    def __init__(self, items: ItemEmbeddings, sequence: SequenceEncoder) -> None:
        super().__init__()
        self.items = items
        self.sequence = sequence

    def forward(self, histories: torch.Tensor) -> torch.Tensor:
        """Encode histories of item numbers (batch, length), oldest first, padded with `PADDING`.

        Returns:
            Predicted vectors, as `SequenceEncoder.forward` returns them.
        """
        vectors = self.items(histories.clamp(min=0))
        return self.sequence(vectors * (histories != PADDING)[..., None])

    def pad(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """Return histories as one tensor (batch, longest length), padded on the side that the encoder expects."""
        side = "right" if self.sequence.causal else "left"
        rows = [torch.from_numpy(history) for history in histories]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING, padding_side=side)

    @torch.no_grad()
    def queries(self, histories: Sequence[np.ndarray]) -> torch.Tensor:
        """Return query vectors (histories, hidden_size) after histories of at least one item each."""
        latest = [history[-self.sequence.max_history :] for history in histories]
        states = self(self.pad(latest))
        last = torch.tensor([len(history) - 1 if self.sequence.causal else 0 for history in latest])
        return states[torch.arange(len(latest)), last]

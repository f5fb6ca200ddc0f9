"""The one face of all conventional recommenders."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch, FeatureEmbeddings
from lorarec.ctr.features import FeatureBatch, FeatureEncoder


class CTRNetwork(nn.Module):
    """Chance of a click of a user on a target item, given the history.

    A subclass says how `hidden` comes about: the last layer before the logit, which routers read.

    Args:
        encoder: says which fields there are.
        width: size of every embedding.
        layers: sizes of the final layers; the last is the size of a representation.
        dropout: after each of the final layers.
    """

    def __init__(
        self, encoder: FeatureEncoder, width: int = 16, layers: Sequence[int] = (128, 64), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embeddings = FeatureEmbeddings(encoder, width)
        self.width = width
        self.layers = tuple(layers)
        self.dropout = dropout
        self.head = nn.Linear(self.layers[-1], 1)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """(events, layers[-1])."""
        raise NotImplementedError

    def logits(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """(events,) log-odds of a click."""
        return self.head(self.hidden(embedded))[:, 0]

    def representation(self, batch: FeatureBatch) -> torch.Tensor:
        """(events, layers[-1]): the last hidden layer."""
        return self.hidden(self.embeddings(batch))

    def forward(self, batch: FeatureBatch) -> torch.Tensor:
        """(events,) log-odds of a click."""
        return self.logits(self.embeddings(batch))

    def final(self, width: int) -> nn.Sequential:
        """The final layers over an input of this width."""
        return feed_forward([width, *self.layers], self.dropout)


def feed_forward(sizes: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU and dropout after each."""
    steps: list[nn.Module] = []
    for before, after in pairwise(sizes):
        steps += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*steps)

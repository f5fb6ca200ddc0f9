"""Embedding tables of fields, which all click-through models share."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import embedding

from lorarec.ctr.features import UNKNOWN, FeatureBatch, FeatureEncoder


@dataclass(frozen=True)
class EmbeddedBatch:
    """Embeddings of a batch; d is the size of an embedding and T the length of the longest history.

    Attributes:
        fields: Embeddings of the fields of users and targets (events, user fields + item fields, d).
        target: Embeddings of the targets (events, item fields * d).
        history: Embeddings of the histories' items (events, T, item fields * d), zeros in padding.
        rating: Embeddings of their ratings (events, T, d), zeros in padding.
        mask: Mask of the histories' items (events, T), False in padding.
    """

    fields: torch.Tensor
    target: torch.Tensor
    history: torch.Tensor
    rating: torch.Tensor
    mask: torch.Tensor

    @property
    def flat(self) -> torch.Tensor:
        """Embeddings of users and targets (events, (user fields + item fields) * d)."""
        return self.fields.flatten(1)

    @cached_property
    def behaviours(self) -> torch.Tensor:
        """Embeddings of the histories' items and ratings (events, T, item fields * d + d)."""
        return torch.cat([self.history, self.rating], -1)

    @cached_property
    def all_fields(self) -> torch.Tensor:
        """Embeddings of users and targets, then the means of the histories' fields and ratings (events, fields, d)."""
        mean = self.behaviours.sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([self.fields, mean.unflatten(-1, (-1, self.fields.shape[-1]))], 1)

    @property
    def last(self) -> torch.Tensor:
        """Positions of the latest items (events,), 0 for an empty history."""
        return (self.mask.sum(1) - 1).clamp(min=0)

    def at_last(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states (events, d) at the latest items of states (events, T, d), zeros for an empty history."""
        return states[torch.arange(len(states)), self.last] * self.mask.any(1, keepdim=True)


class FeatureEmbeddings(nn.Module):
    """Embedding tables of all fields. Several values of a field are averaged; padding and unknown values are zeros.

    Args:
        encoder: Encoder that defines the fields and their numbers of values.
        embedding_dim: Size of every embedding.

    Attributes:
        target_size: Size of the embeddings of a target's fields.
        behaviour_size: Size of the embeddings of a history item's fields and its rating.
        flat_size: Size of the embeddings of the fields of user and target.
        all_size: Sum of `flat_size` and `behaviour_size`.
    """

    def __init__(self, encoder: FeatureEncoder, embedding_dim: int) -> None:
        super().__init__()
        self.user = nn.ModuleList(_table(field.size, embedding_dim) for field in encoder.users)
        self.item = nn.ModuleList(_table(field.size, embedding_dim) for field in encoder.items)
        self.rating = _table(encoder.ratings, embedding_dim)
        self.target_size = embedding_dim * len(encoder.items)
        self.behaviour_size = self.target_size + embedding_dim
        self.flat_size = embedding_dim * (len(encoder.users) + len(encoder.items))
        self.all_size = self.flat_size + self.behaviour_size

    def forward(self, batch: FeatureBatch) -> EmbeddedBatch:
        """Return the embeddings of a batch."""
        users, items = _look_up(self.user, batch.user), _look_up(self.item, batch.item)
        return EmbeddedBatch(
            torch.stack(users + items, 1),
            torch.cat(items, -1),
            embedding(batch.history, torch.cat(_look_up(self.item, batch.history_items), -1)),
            self.rating(batch.rating),
            batch.mask,
        )


def _table(size: int, embedding_dim: int) -> nn.Embedding:
    table = nn.Embedding(size, embedding_dim, padding_idx=UNKNOWN)
    with torch.no_grad():
        table.weight[UNKNOWN + 1 :].normal_(std=0.01)
    return table


def _look_up(tables: Iterable[nn.Module], numbers: list[torch.Tensor]) -> list[torch.Tensor]:
    return [_mean(table(values), values) for table, values in zip(tables, numbers, strict=True)]


def _mean(vectors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the means (..., d) of the vectors (..., values, d) of known values; those of unknown ones are zeros."""
    if values.shape[-1] == 1:
        return vectors.squeeze(-2)
    return vectors.sum(-2) / (values != UNKNOWN).sum(-1, keepdim=True).clamp(min=1)

"""Embedding tables of fields, shared by all conventional recommenders."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import embedding

from lorarec.ctr.features import UNKNOWN, FeatureBatch, FeatureEncoder


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch after its embedding tables.

    Attributes:
        fields: (events, user fields + item fields, d) of the user and the target.
        target: (events, item fields * d) of the target item.
        history: (events, T, item fields * d) of the history's items; zeros where there is none.
        rating: (events, T, d) of their ratings; zeros where there is none.
        mask: (events, T) True where the history has an item.
    """

    fields: torch.Tensor
    target: torch.Tensor
    history: torch.Tensor
    rating: torch.Tensor
    mask: torch.Tensor

    @property
    def flat(self) -> torch.Tensor:
        """(events, (user fields + item fields) * d): user and target."""
        return self.fields.flatten(1)

    @cached_property
    def behaviours(self) -> torch.Tensor:
        """(events, T, item fields * d + d): the history's items with their ratings."""
        return torch.cat([self.history, self.rating], -1)

    @cached_property
    def all_fields(self) -> torch.Tensor:
        """(events, fields, d): user and target, then the mean of each of the history's fields and of its ratings."""
        mean = self.behaviours.sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([self.fields, mean.unflatten(-1, (-1, self.fields.shape[-1]))], 1)

    @property
    def last(self) -> torch.Tensor:
        """(events,) place of the latest item, 0 for an empty history."""
        return (self.mask.sum(1) - 1).clamp(min=0)

    def at_last(self, states: torch.Tensor) -> torch.Tensor:
        """(events, d) of (events, T, d): those at the latest item, zeros for an empty history."""
        return states[torch.arange(len(states)), self.last] * self.mask.any(1, keepdim=True)


class FeatureEmbeddings(nn.Module):
    """Tables of all fields. Several values of one field are averaged; padding and unknown values are zeros.

    Args:
        encoder: says which fields there are and how large.
        width: d, the size of every embedding.
    """

    def __init__(self, encoder: FeatureEncoder, width: int) -> None:
        super().__init__()
        self.user = nn.ModuleList(_table(field.size, width) for field in encoder.users)
        self.item = nn.ModuleList(_table(field.size, width) for field in encoder.items)
        self.rating = _table(encoder.ratings, width)
        self.target_width = width * len(encoder.items)
        self.behaviour_width = self.target_width + width
        self.flat_width = width * (len(encoder.users) + len(encoder.items))
        self.all_width = self.flat_width + self.behaviour_width

    def forward(self, batch: FeatureBatch) -> EmbeddedBatch:
        """Look everything up once."""
        users, items = _read(self.user, batch.user), _read(self.item, batch.item)
        return EmbeddedBatch(
            torch.stack(users + items, 1),
            torch.cat(items, -1),
            embedding(batch.history, torch.cat(_read(self.item, batch.seen), -1)),
            self.rating(batch.rating),
            batch.mask,
        )


def _table(size: int, width: int) -> nn.Embedding:
    table = nn.Embedding(size, width, padding_idx=UNKNOWN)
    with torch.no_grad():
        table.weight[UNKNOWN + 1 :].normal_(std=0.01)
    return table


def _read(tables: Iterable[nn.Module], numbers: list[torch.Tensor]) -> list[torch.Tensor]:
    return [_mean(table(values), values) for table, values in zip(tables, numbers, strict=True)]


def _mean(vectors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(..., d) of the vectors (..., width, d) of known values; those of unknown ones are zeros."""
    if values.shape[-1] == 1:
        return vectors.squeeze(-2)
    return vectors.sum(-2) / (values != UNKNOWN).sum(-1, keepdim=True).clamp(min=1)

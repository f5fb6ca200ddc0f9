"""Embedding tables of fields, shared by all conventional recommenders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lorarec.conventional.fields import UNKNOWN, Batch, Encoder


@dataclass(frozen=True)
class Embedded:
    """A batch after its embedding tables.

    Attributes:
        fields: (events, user fields + item fields, d) of the user and the target.
        target: (events, item fields * d) of the target item.
        history: (events, T, item fields * d) of the history's items.
        rating: (events, T, d) of their stars.
        mask: (events, T) True where the history has an item.
    """

    fields: torch.Tensor
    target: torch.Tensor
    history: torch.Tensor
    rating: torch.Tensor
    mask: torch.Tensor

    @property
    def behaviours(self) -> torch.Tensor:
        """(events, T, item fields * d + d): the history's items with their stars."""
        return torch.cat([self.history, self.rating], -1)

    @property
    def all_fields(self) -> torch.Tensor:
        """(events, fields, d): user and target, then the mean of each of the history's fields and of its stars."""
        mean = (self.behaviours * self.mask[..., None]).sum(1) / self.mask.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([self.fields, mean.unflatten(-1, (-1, self.fields.shape[-1]))], 1)

    @property
    def last(self) -> torch.Tensor:
        """(events,) place of the latest item, 0 for an empty history."""
        return (self.mask.sum(1) - 1).clamp(min=0)


class Embeddings(nn.Module):
    """Tables of all fields; several values of one field are averaged.

    Args:
        encoder: says which fields there are and how large.
        width: d, the size of every embedding.
    """

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.width = width
        self.user = nn.ModuleList(_table(field.size, width) for field in encoder.users)
        self.item = nn.ModuleList(_table(field.size, width) for field in encoder.items)
        self.rating = _table(encoder.ratings, width)
        self.target_width = width * len(encoder.items)
        self.behaviour_width = self.target_width + width
        self.flat_width = width * (len(encoder.users) + len(encoder.items))
        self.field_count = len(encoder.users) + 2 * len(encoder.items) + 1

    def forward(self, batch: Batch) -> Embedded:
        """Look everything up once."""
        users, items = _read(self.user, batch.user), _read(self.item, batch.item)
        return Embedded(
            torch.stack(users + items, 1),
            torch.cat(items, -1),
            torch.cat(_read(self.item, batch.history), -1),
            self.rating(batch.rating),
            batch.mask,
        )


def _table(size: int, width: int) -> nn.Embedding:
    table = nn.Embedding(size, width)
    nn.init.normal_(table.weight, std=0.01)
    return table


def _read(tables: nn.ModuleList, numbers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    found = []
    for table, values in zip(tables, numbers, strict=True):
        if values.shape[-1] == 1:  # an id: its `UNKNOWN` is a value like any other
            found.append(table(values[..., 0]))
        else:
            known = (values != UNKNOWN).unsqueeze(-1)
            found.append((table(values) * known).sum(-2) / known.sum(-2).clamp(min=1))
    return found

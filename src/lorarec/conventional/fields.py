"""Users, items and histories as whole numbers that embedding tables read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from lorarec.data.clicks import TRAIN, ClickLog
from lorarec.data.columns import ITEM, TITLE, USER

#: Number of padding and of values that training never saw.
UNKNOWN = 0
YEAR = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True)
class Field:
    """One property of users or items.

    Attributes:
        name: of the column.
        size: how many numbers it needs, with `UNKNOWN`.
        table: (rows, width) the numbers of each user or item, padded with `UNKNOWN`: several genres, one id.
    """

    name: str
    size: int
    table: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Events as tensors; T is the length of the longest history, at least 1.

    Attributes:
        user: one (events, width) tensor per field of the user.
        item: one (events, width) tensor per field of the target item.
        history: one (events, T, width) tensor per field of the history's items, oldest first, padded on the right.
        rating: (events, T) stars of the history's items, rounded up, 0 where there is none.
    """

    user: list[torch.Tensor]
    item: list[torch.Tensor]
    history: list[torch.Tensor]
    rating: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """(events, T) True where the history has an item."""
        return self.rating > 0


class Encoder:
    """Turns events of a `ClickLog` into batches.

    Users and items get numbers if training has them, else `UNKNOWN`; what is known of them besides (gender, genres,
    the year in a title) is encoded all the same, so that new items are not blank.

    Args:
        log: events; only its training part decides which ids are known.
        max_history: the latest items of a history that are kept.

    Attributes:
        users: fields of users, the id first.
        items: fields of items, the id first.
        ratings: size of the table of stars.
    """

    def __init__(self, log: ClickLog, max_history: int = 60) -> None:
        self.log = log
        self.max_history = max_history
        train = log.rows(TRAIN)
        data = log.dataset
        self.users = [_ids(USER, log.user[train], len(log.users)), *_user_fields(log)]
        self.items = [_ids(ITEM, log.item[train], len(data.items)), *_item_fields(data.items)]
        self.ratings = int(np.ceil(log.stars)) + 2

    def batch(self, events: np.ndarray, histories: Sequence[np.ndarray] | None = None) -> Batch:
        """Encode events.

        Args:
            histories: for each event the events of its history that are shown, in time order; the latest ones if None.
        """
        if histories is None:
            histories = [self.log.history(int(event), self.max_history) for event in events]
        longest = max(1, max(map(len, histories), default=0))
        shown = np.full((len(events), longest), -1)
        for row, history in enumerate(histories):
            shown[row, : len(history)] = history
        present = shown >= 0
        items = self.log.item[shown]
        stars = np.where(present, np.ceil(self.log.rating[shown]).astype(np.int64) + 1, 0)
        return Batch(
            [torch.from_numpy(field.table[self.log.user[events]]) for field in self.users],
            [torch.from_numpy(field.table[self.log.item[events]]) for field in self.items],
            [torch.from_numpy(np.where(present[..., None], field.table[items], UNKNOWN)) for field in self.items],
            torch.from_numpy(stars),
        )


def _ids(name: str, seen: np.ndarray, count: int) -> Field:
    known = np.unique(seen)
    numbers = np.zeros(count, np.int64)
    numbers[known] = np.arange(1, len(known) + 1)
    return Field(name, len(known) + 1, numbers[:, None])


def _user_fields(log: ClickLog) -> list[Field]:
    if log.dataset.users is None:
        return []
    order = pl.DataFrame({USER: log.users})
    table = order.join(log.dataset.users, on=USER, how="left", maintain_order="left")
    columns = [name for name in ("gender", "age", "occupation") if name in table.columns]
    return [_categories(name, [[value] for value in table[name].to_list()]) for name in columns]


def _item_fields(items: pl.DataFrame) -> list[Field]:
    found = [YEAR.search(title) for title in items[TITLE]]
    fields = [_categories("year", [[match and match[1]] for match in found])] if any(found) else []
    if "genres" in items.columns:
        fields.append(_categories("genres", [(text or "").split(", ") for text in items["genres"]]))
    return fields


def _categories(name: str, values: Sequence[Sequence[Any]]) -> Field:
    """A field whose rows hold one value or several; empty ones and None are `UNKNOWN`."""
    known = sorted({value for row in values for value in row if value not in (None, "")}, key=str)
    numbers = {value: number for number, value in enumerate(known, start=1)}
    table = np.zeros((len(values), max(map(len, values))), np.int64)
    for at, row in enumerate(values):
        table[at, : len(row)] = [numbers.get(value, UNKNOWN) for value in row]
    return Field(name, len(known) + 1, table)

"""Users, items and histories as integers, which embedding tables read."""

import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from lorarec.ctr.retriever import Retriever
from lorarec.data import ITEM, TITLE, TRAIN, USER, ClickLog

#: Number of padding and of values that do not occur in training.
UNKNOWN = 0
USER_FIELDS = ("gender", "age", "occupation")
YEAR = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True)
class Field:
    """A categorical field of users or items, such as the id or the genres.

    Attributes:
        size: Number of different values, with `UNKNOWN`.
        table: Numbers of the values of each user or item (rows + 1, most values), padded with `UNKNOWN`. The last row
            stands for an unknown user or item.
    """

    size: int
    table: np.ndarray


@dataclass(frozen=True)
class FeatureBatch:
    """Events as tensors; T is the length of the longest history, at least 1.

    Attributes:
        user: Values of each field of the users, one tensor (events, most values) per field.
        item: Values of each field of the target items, one tensor (events, most values) per field.
        history_items: Values of each field of the n different items in all histories, one tensor (n, most values) per
            field; the first item is padding, whose values are `UNKNOWN`.
        history: Rows of `history_items` (events, T), oldest first, padded on the right with 0.
        rating: Ratings of the histories' items in half stars, plus one (events, T); 0 in padding.
    """

    user: list[torch.Tensor]
    item: list[torch.Tensor]
    history_items: list[torch.Tensor]
    history: torch.Tensor
    rating: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """Mask of the histories' items (events, T), False in padding."""
        return self.rating > 0


class FeatureEncoder:
    """Encode events of a `ClickLog` as batches.

    Ids, profiles (gender, age, occupation), genres and years of release get numbers if they occur in the training part,
    otherwise `UNKNOWN`. A new item is therefore represented by its genres and its year.

    Args:
        log: Click log; values that occur in its training part are known.
        max_history: Number of items of a history that are read, in time order: the latest, or the most similar to the
            target.
        embeddings: Item vectors (items, size) that define similarity (RecLoRA's retrieval, see `Retriever`), or None to
            read the latest items.

    Attributes:
        users: Fields of users, the id first.
        items: Fields of items, the id first.
        ratings: Number of different ratings, with padding.
    """

    def __init__(self, log: ClickLog, max_history: int, embeddings: np.ndarray | None = None) -> None:
        self.log = log
        self.embeddings = embeddings
        self._retriever = None if embeddings is None else Retriever(log.user, log.item, log.time, embeddings)
        self.max_history = max_history
        train = log.rows(TRAIN)
        self.users = _fields(_user_values(log), log.user[train])
        self.items = _fields(_item_values(log.dataset.items), log.item[train])
        self.ratings = round(2 * log.stars) + 2

    def with_log(self, log: ClickLog) -> Self:
        """Return an encoder of another log with the same numbers.

        Args:
            log: Click log with the `users` and the `dataset` of the log of this encoder; number `len(log.users)` stands
                for a new user.
        """
        other = copy(self)
        other.log = log
        if self.embeddings is not None:
            other._retriever = Retriever(log.user, log.item, log.time, self.embeddings)
        return other

    def batch(self, events: np.ndarray) -> FeatureBatch:
        """Encode events and their histories."""
        rows = self.histories(events)
        present = rows >= 0
        user, item = self.log.user[events], self.log.item[events]
        # Histories of a batch share items, and each item is embedded once.
        different, history = np.unique(np.append(-1, np.where(present, self.log.item[rows], -1)), return_inverse=True)
        known = (different >= 0)[:, None]
        half_stars = np.rint(2 * self.log.rating[rows]).astype(np.int64)
        return FeatureBatch(
            [torch.from_numpy(field.table[user]) for field in self.users],
            [torch.from_numpy(field.table[item]) for field in self.items],
            [torch.from_numpy(np.where(known, field.table[different], UNKNOWN)) for field in self.items],
            torch.from_numpy(history[1:].reshape(rows.shape)),
            torch.from_numpy(np.where(present, half_stars + 1, 0)),
        )

    def histories(self, events: np.ndarray) -> np.ndarray:
        """Return the events' histories (events, T) as events of the log, oldest first, padded with -1.

        T is the length of the longest history, at least 1.
        """
        log = self.log
        if self._retriever is None:
            return log.histories(events, self.max_history)
        behaviours = self._retriever.similar(log.user[events], log.item[events], log.time[events], self.max_history)
        return behaviours[:, : max(1, int((behaviours >= 0).sum(1).max(initial=0)))]


def _user_values(log: ClickLog) -> list[Sequence[Sequence[Any]]]:
    """Return for each field the values of every user."""
    names = [name for name in (USER, *USER_FIELDS) if name in log.profiles.columns]
    return [[[value] for value in log.profiles[name]] for name in names]


def _item_values(items: pl.DataFrame) -> list[Sequence[Sequence[Any]]]:
    """Return for each field the values of every item."""
    years = [YEAR.search(title) for title in items[TITLE]]
    values: list[Sequence[Sequence[Any]]] = [[[item] for item in items[ITEM]]]
    if any(years):
        values.append([[year and year[1]] for year in years])
    if "genres" in items.columns:
        values.append([(genres or "").split(", ") for genres in items["genres"]])
    return values


def _fields(columns: Sequence[Sequence[Sequence[Any]]], train: np.ndarray) -> list[Field]:
    return [_field(values, np.unique(train)) for values in columns]


def _field(values: Sequence[Sequence[Any]], train: np.ndarray) -> Field:
    """Return a field whose rows have one or more values; None, "" and values of no row of `train` are `UNKNOWN`."""
    known = sorted({value for row in train for value in values[row] if value not in (None, "")}, key=str)
    numbers = {value: number for number, value in enumerate(known, start=UNKNOWN + 1)}
    table = np.full((len(values) + 1, max(map(len, values))), UNKNOWN)
    for at, row in enumerate(values):
        table[at, : len(row)] = [numbers.get(value, UNKNOWN) for value in row]
    return Field(len(known) + 1, table)

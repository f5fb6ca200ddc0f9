"""Users, items and histories as whole numbers that embedding tables read."""

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

#: Number of padding and of values that training never saw.
UNKNOWN = 0
USER_FIELDS = ("gender", "age", "occupation")
YEAR = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True)
class Field:
    """One property of users or items.

    Attributes:
        size: how many numbers it needs, with `UNKNOWN`.
        table: (rows + 1, width) the numbers of each user or item, padded with `UNKNOWN`: several genres, one id. The
            last row is of one of whom nothing is known.
    """

    size: int
    table: np.ndarray


@dataclass(frozen=True)
class FeatureBatch:
    """Events as tensors; T is the length of the longest history, at least 1.

    Attributes:
        user: one (events, width) tensor per field of the user.
        item: one (events, width) tensor per field of the target item.
        seen: one (n, width) tensor per field of the n different items in all histories, the first `UNKNOWN` throughout.
        history: (events, T) rows of `seen`, oldest first, padded on the right with 0.
        rating: (events, T) ratings of the history's items in half stars, plus one; 0 where there is none.
    """

    user: list[torch.Tensor]
    item: list[torch.Tensor]
    seen: list[torch.Tensor]
    history: torch.Tensor
    rating: torch.Tensor

    @property
    def mask(self) -> torch.Tensor:
        """(events, T) True where the history has an item."""
        return self.rating > 0


class FeatureEncoder:
    """Turns events of a `ClickLog` into batches.

    Ids, profiles (gender, age, occupation), genres and years of release get numbers if the training part has them,
    else `UNKNOWN`. So a new item is known by its genres and its year.

    Args:
        log: events; only its training part decides what is known.
        max_history: items of a history that are kept, in time order: the latest, or the most similar to the target.
        embeddings: (items, d) vectors that say what is similar (RecLoRA's retrieval, see `Retriever`); the latest are
            kept when None.

    Attributes:
        users: fields of users, the id first.
        items: fields of items, the id first.
        ratings: how many numbers ratings need.
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

    def over(self, log: ClickLog) -> Self:
        """The same numbers for another log of these items; its users are some of these, or `len(log.users)`: new ones.

        Args:
            log: with `users` and `dataset` of the log that was trained on.
        """
        other = copy(self)
        other.log = log
        if self.embeddings is not None:
            other._retriever = Retriever(log.user, log.item, log.time, self.embeddings)
        return other

    def batch(self, events: np.ndarray) -> FeatureBatch:
        """Encode events with what is kept of their histories."""
        shown = self.histories(events)
        present = shown >= 0
        user, item = self.log.user[events], self.log.item[events]
        # Histories of a batch share items: each is embedded once.
        different, history = np.unique(np.append(-1, np.where(present, self.log.item[shown], -1)), return_inverse=True)
        known = (different >= 0)[:, None]
        half_stars = np.rint(2 * self.log.rating[shown]).astype(np.int64)
        return FeatureBatch(
            [torch.from_numpy(field.table[user]) for field in self.users],
            [torch.from_numpy(field.table[item]) for field in self.items],
            [torch.from_numpy(np.where(known, field.table[different], UNKNOWN)) for field in self.items],
            torch.from_numpy(history[1:].reshape(shown.shape)),
            torch.from_numpy(np.where(present, half_stars + 1, 0)),
        )

    def histories(self, events: np.ndarray) -> np.ndarray:
        """What is kept of the events' histories: (events, T) events of the log, oldest first, padded with -1.

        T is the length of the longest, at least 1.
        """
        log = self.log
        if self._retriever is None:
            return log.histories(events, self.max_history)
        found = self._retriever.similar(log.user[events], log.item[events], log.time[events], self.max_history)
        return found[:, : max(1, int((found >= 0).sum(1).max(initial=0)))]


def _user_values(log: ClickLog) -> list[Sequence[Sequence[Any]]]:
    """For each field the values of every user."""
    names = [name for name in (USER, *USER_FIELDS) if name in log.profiles.columns]
    return [[[value] for value in log.profiles[name]] for name in names]


def _item_values(items: pl.DataFrame) -> list[Sequence[Sequence[Any]]]:
    """For each field the values of every item."""
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
    """A field whose rows hold one value or several; None, "" and values that no row of `train` has are `UNKNOWN`."""
    known = sorted({value for row in train for value in values[row] if value not in (None, "")}, key=str)
    numbers = {value: number for number, value in enumerate(known, start=UNKNOWN + 1)}
    table = np.full((len(values) + 1, max(map(len, values))), UNKNOWN)
    for at, row in enumerate(values):
        table[at, : len(row)] = [numbers.get(value, UNKNOWN) for value in row]
    return Field(len(known) + 1, table)

"""Candidate sets: the target among items that its user never interacted with, in random order."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from lorarec.data.columns import CANDIDATES, ITEM, TARGET, USER
from lorarec.errors import LorarecError

# Rejection needs about catalogue / untouched draws for each negative, an exact draw about catalogue steps for a case.
_EXACT_BELOW_SHARE = 0.25


@dataclass(frozen=True)
class InteractionLookup:
    """Look up the interactions of users with items of a catalogue.

    Attributes:
        keys: Sorted integers user * n_items + item, one for each pair of a user and an item.
        n_items: Number of items of the catalogue.
    """

    keys: np.ndarray
    n_items: int

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return whether each user interacted with each item (the two arrays are broadcast to one shape)."""
        wanted = users * self.n_items + items
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.asarray(self.keys[place] == wanted)

    def items_of_user(self, user: int) -> np.ndarray:
        """Return the codes of the items that a user interacted with."""
        first, last = np.searchsorted(self.keys, [user * self.n_items, (user + 1) * self.n_items])
        return np.asarray(self.keys[first:last] - user * self.n_items)


def draw_candidates(
    cases: pl.DataFrame, interactions: pl.DataFrame, catalogue: pl.Series, negatives: int, rng: np.random.Generator
) -> pl.DataFrame:
    """Add a column `candidates`: the target and items of the catalogue that its user never interacted with.

    Args:
        cases: The columns user_id, target and others; one row per case.
        interactions: All interactions of the users, in any part of the split.
        catalogue: The unique ids of the items to draw from, among them every target.
        negatives: Number of items to draw for each case, uniformly without replacement.
        rng: The random generator; the same state gives the same result.

    Returns:
        `cases` with lists of negatives + 1 item ids in random order. Cases whose user has fewer than `negatives` items
        left are dropped.

    Raises:
        LorarecError: The catalogue is smaller than a candidate set.
    """
    if catalogue.len() < negatives + 1:
        most = catalogue.len() - 1
        fewer = f"set option negatives of the split (`lorarec data split`) to at most {most} or " if most > 0 else ""
        raise LorarecError(
            f"{negatives + 1} candidates need as many items, but only {catalogue.len()} can be drawn: {fewer}use more "
            "items"
        )
    if cases.is_empty():
        return _without_candidates(cases)
    cases, users, targets, touched = _encode(cases, interactions, catalogue)
    counts = np.bincount(touched.keys // touched.n_items, minlength=users.max() + 1)
    untouched = touched.n_items - counts[users]
    enough = untouched >= negatives
    if not enough.any():
        return _without_candidates(cases.clear())
    cases, users, targets, untouched = cases.filter(enough), users[enough], targets[enough], untouched[enough]
    drawn = _draw(users, untouched, touched, negatives, rng)
    sets = np.concatenate([targets[:, None], drawn], axis=1)
    sets = np.take_along_axis(sets, rng.random(sets.shape).argsort(axis=1), axis=1)
    ids = catalogue.gather(sets.ravel()).reshape(sets.shape).arr.to_list()
    return cases.with_columns(ids.alias(CANDIDATES))


def _without_candidates(no_cases: pl.DataFrame) -> pl.DataFrame:
    return no_cases.with_columns(pl.lit(None, pl.List(pl.String)).alias(CANDIDATES))


def _encode(
    cases: pl.DataFrame, interactions: pl.DataFrame, catalogue: pl.Series
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray, InteractionLookup]:
    item_codes = pl.DataFrame({ITEM: catalogue}).with_row_index("item")
    user_codes = cases.select(pl.col(USER).unique().sort()).with_row_index("user")
    pairs = interactions.select(USER, ITEM).join(user_codes, on=USER).join(item_codes, on=ITEM)
    keys = pairs["user"].to_numpy().astype(np.int64) * catalogue.len() + pairs["item"].to_numpy()
    coded = cases.join(user_codes, on=USER, maintain_order="left")
    coded = coded.join(item_codes, left_on=TARGET, right_on=ITEM, maintain_order="left")
    users, targets = coded["user"].to_numpy().astype(np.int64), coded["item"].to_numpy().astype(np.int64)
    return coded.drop("user", "item"), users, targets, InteractionLookup(np.unique(keys), catalogue.len())


def _draw(
    users: np.ndarray, untouched: np.ndarray, touched: InteractionLookup, negatives: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw item codes (cases, negatives), distinct within a row, that the row's user never interacted with."""
    drawn = np.empty((len(users), negatives), dtype=np.int64)
    exact = (untouched < _EXACT_BELOW_SHARE * touched.n_items) | (untouched < 4 * negatives)
    for row in np.flatnonzero(exact):
        pool = np.setdiff1d(np.arange(touched.n_items), touched.items_of_user(users[row]), assume_unique=True)
        drawn[row] = rng.choice(pool, negatives, replace=False)
    rows = np.flatnonzero(~exact)
    redraw = np.ones((len(rows), negatives), dtype=bool)
    while len(rows):
        block = drawn[rows]
        block[redraw] = rng.integers(0, touched.n_items, int(redraw.sum()))
        drawn[rows] = block
        redraw = _repeats(block) | touched.contains(users[rows][:, None], block)
        unfinished = redraw.any(axis=1)
        rows, redraw = rows[unfinished], redraw[unfinished]
    return drawn


def _repeats(block: np.ndarray) -> np.ndarray:
    """Return whether each value occurred before in its row."""
    order = block.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(block, order, axis=1)
    again = np.zeros(block.shape, dtype=bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    result = np.empty_like(again)
    np.put_along_axis(result, order, again, axis=1)
    return result

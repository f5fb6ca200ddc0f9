"""The protocol of candidate sources, and the simplest source: popularity."""

from typing import ClassVar, Protocol

import numpy as np

#: Number of items of a history that most sources read, the latest.
MAX_HISTORY = 10


class CandidateSource(Protocol):
    """The protocol of sources of candidates for a history; items are rows of the catalogue.

    Attributes:
        max_history: Number of different items of a history, the latest, whose contributions can be told.
    """

    max_history: ClassVar[int]

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """Return candidates for a history, the best first.

        Args:
            history: Rows of the history's items in time order (length,).
            count: Maximum number of candidates.
            blocked: Mask of the items that must not be returned (items,).
        """

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return how much each item of the history contributes to each candidate (rows, history), 0 for nothing.

        Args:
            history: Different rows of the history, the latest first, as `latest_items` returns them for `max_history`.
            rows: Rows of the candidates.
        """


class PopularSource:
    """Retrieve items by the number of users who chose them; the fallback, since it ranks every item.

    The recommender `Popularity` counts interactions instead, so that a user who chose an item twice counts twice.

    Args:
        counts: Number of users of each item (items,).
    """

    max_history: ClassVar[int] = MAX_HISTORY

    def __init__(self, counts: np.ndarray) -> None:
        self.order = np.argsort(-counts, kind="stable")

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        # So many rows contain `count` allowed ones, even if all the blocked ones come first.
        first = self.order[: count + int(blocked.sum())]
        return first[~blocked[first]][:count]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return zeros, since popularity does not depend on the history."""
        return np.zeros((len(rows), len(history)))


def latest_items(history: np.ndarray, count: int = MAX_HISTORY) -> np.ndarray:
    """Return the latest `count` different rows of a history, the latest first."""
    return np.array(list(dict.fromkeys(history[::-1].tolist()))[:count], np.int64)


def concatenate_ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the integers of half-open ranges, one range after the other.

    Args:
        begin: First integer of each range (n,).
        end: End of each range, exclusive (n,).
    """
    length = end - begin
    return np.repeat(end - np.cumsum(length), length) + np.arange(int(length.sum()))

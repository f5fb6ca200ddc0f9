"""What every source of candidates offers, and the simplest of them: popularity."""

from typing import Protocol

import numpy as np

#: The latest items of a history that co-occurrence and titles look at.
RECENT = 10


class CandidateSource(Protocol):
    """Finds rows of the catalogue for a history of such rows, latest last."""

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """At most `count` different rows that are not blocked (items,), best first."""

    def ties(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(rows, history) how much each row rests on each item of the history; 0 where it does not."""


class PopularSource:
    """Items by the number of users who chose them: the fallback, which never runs dry."""

    def __init__(self, counts: np.ndarray) -> None:
        self.order = np.argsort(-counts, kind="stable")

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource`."""
        # So many rows hold `count` free ones, even if all the blocked ones come first.
        first = self.order[: count + int(blocked.sum())]
        return first[~blocked[first]][:count]

    def ties(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Popularity rests on nothing in the history."""
        return np.zeros((len(rows), len(history)))


def recent(history: np.ndarray) -> np.ndarray:
    """The latest `RECENT` different rows of a history, latest first."""
    return np.array(list(dict.fromkeys(history[::-1].tolist()))[:RECENT], np.int64)


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The whole numbers of several half-open ranges, one range after the other."""
    length = end - begin
    return np.repeat(end - np.cumsum(length), length) + np.arange(int(length.sum()))

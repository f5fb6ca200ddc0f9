"""The source of items that were chosen by the users who chose the items of the history."""

from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix

from lorarec.data import subsample_users
from lorarec.retrieval.nearest import best
from lorarec.retrieval.source import MAX_HISTORY, concatenate_ranges, latest_items


class CooccurrenceSource:
    """Retrieve items by the sum of the cosines between their users and those of each of the latest history items.

    At most `MAX_USERS` users of the history items are counted, as in `lorarec.data.Cooccurrence`.

    Args:
        chosen: Binary matrix (users, items) of the items that each user chose.
    """

    max_history: ClassVar[int] = MAX_HISTORY

    def __init__(self, chosen: csr_matrix) -> None:
        self.items_of = chosen
        self.users_of = chosen.T.tocsr()
        self.scale = 1 / np.sqrt(np.maximum(np.diff(self.users_of.indptr), 1))

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        latest = latest_items(history, self.max_history)
        begin, end = self.users_of.indptr[latest], self.users_of.indptr[latest + 1]
        users = self.users_of.indices[concatenate_ranges(begin, end)]
        weights = np.repeat(self.scale[latest], end - begin)
        sample = subsample_users(len(users))
        users, weights = users[sample], weights[sample]
        begin, end = self.items_of.indptr[users], self.items_of.indptr[users + 1]
        items = self.items_of.indices[concatenate_ranges(begin, end)]
        scores = np.bincount(items, np.repeat(weights, end - begin), minlength=len(blocked)) * self.scale
        rows = np.flatnonzero((scores > 0) & ~blocked)
        return rows[best(scores[rows], count)]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `CandidateSource.similarities`."""
        return (self.users_of[rows] @ self.users_of[history].T).toarray() * self.scale[history]

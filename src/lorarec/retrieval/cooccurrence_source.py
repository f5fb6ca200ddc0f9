"""Items that were chosen by the users who chose the items of the history."""

import numpy as np
from scipy.sparse import csr_matrix

from lorarec.data import subsample_users
from lorarec.retrieval.nearest import best
from lorarec.retrieval.source import ranges, recent


class CooccurrenceSource:
    """The sum of the cosines between who chose an item and who chose each of the latest history items.

    With U_i the users who chose item i: sum over h of |U_h ∩ U_i| / sqrt(|U_h| |U_i|). Where the items of a history
    have many users in all, some of them are asked (see `lorarec.data.subsample_users`).

    Args:
        chosen: (users, items) ones where a user chose an item.
    """

    def __init__(self, chosen: csr_matrix) -> None:
        self.items_of = chosen
        self.users_of = chosen.T.tocsr()
        self.scale = 1 / np.sqrt(np.maximum(np.diff(self.users_of.indptr), 1))

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `Source`."""
        latest = recent(history)
        begin, end = self.users_of.indptr[latest], self.users_of.indptr[latest + 1]
        users = self.users_of.indices[ranges(begin, end)]
        weights = np.repeat(self.scale[latest], end - begin)
        some = subsample_users(len(users))
        users, weights = users[some], weights[some]
        begin, end = self.items_of.indptr[users], self.items_of.indptr[users + 1]
        items = self.items_of.indices[ranges(begin, end)]
        scores = np.bincount(items, np.repeat(weights, end - begin), minlength=len(blocked)) * self.scale
        rows = np.flatnonzero((scores > 0) & ~blocked)
        return rows[best(scores[rows], count)]

    def ties(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        return (self.users_of[rows] @ self.users_of[history].T).toarray() * self.scale[history]

"""Items with titles like those of the history: the way in for items that nobody has chosen yet."""

import numpy as np
from scipy.sparse import csr_matrix

from lorarec.retrieval.nearest import best
from lorarec.retrieval.source import ranges, recent

#: Words in more titles than this are passed over: they say little, and reading them would cost more than all others.
MOST_TITLES = 50_000


class TitleSource:
    """Inner products of title vectors with the sum of those of the latest history items, over words that are not in
    more than `MOST_TITLES` titles.

    Args:
        words: (items, words) title vectors, see `lorarec.data.tfidf`.
        rows: the items that are proposed.
    """

    def __init__(self, words: csr_matrix, rows: np.ndarray) -> None:
        self.words = words
        self.rows = rows
        self.items_of = words[rows].T.tocsr()

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `Source`."""
        latest = recent(history)
        query = csr_matrix(np.ones((1, len(latest)))) @ self.words[latest]
        begin, end = self.items_of.indptr[query.indices], self.items_of.indptr[query.indices + 1]
        end = np.where(end - begin > MOST_TITLES, begin, end)
        places = ranges(begin, end)
        products = self.items_of.data[places] * np.repeat(query.data, end - begin)
        scores = np.bincount(self.items_of.indices[places], products, minlength=len(self.rows))
        found = np.flatnonzero(scores > 0)
        found = found[~blocked[self.rows[found]]]
        return self.rows[found[best(scores[found], count)]]

    def ties(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Source`."""
        return (self.words[rows] @ self.words[history].T).toarray()

"""The source of items with titles like those of the history, and the only one of items without interactions."""

import numpy as np
from scipy.sparse import csr_matrix

from lorarec.retrieval.nearest import best
from lorarec.retrieval.source import concatenate_ranges, latest_items

#: Words in more titles than this are skipped: they say little, and reading them would cost more than all others.
MAX_TITLES = 50_000


class TitleSource:
    """Retrieve items by the inner product of their title vector with the sum of those of the latest items.

    The score is that of the recommender `TfIdf`. Unlike `TfIdf`, which scores given candidates, the source searches the
    whole catalogue: each history item counts once, and words in more than `MAX_TITLES` titles are skipped.

    Args:
        words: Sparse title vectors (items, words) of `lorarec.data.title_vectors`.
        rows: Rows of the items that may be returned.
    """

    def __init__(self, words: csr_matrix, rows: np.ndarray) -> None:
        self.words = words
        self.rows = rows
        self.items_of = words[rows].T.tocsr()

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        latest = latest_items(history)
        query = csr_matrix(np.ones((1, len(latest)))) @ self.words[latest]
        begin, end = self.items_of.indptr[query.indices], self.items_of.indptr[query.indices + 1]
        end = np.where(end - begin > MAX_TITLES, begin, end)
        places = concatenate_ranges(begin, end)
        products = self.items_of.data[places] * np.repeat(query.data, end - begin)
        scores = np.bincount(self.items_of.indices[places], products, minlength=len(self.rows))
        matches = np.flatnonzero(scores > 0)
        matches = matches[~blocked[self.rows[matches]]]
        return self.rows[matches[best(scores[matches], count)]]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `CandidateSource.similarities`."""
        return (self.words[rows] @ self.words[history].T).toarray()

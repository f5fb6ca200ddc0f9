"""Sources of items with titles like those of the history; only they find items without interactions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_matrix

from lorarec.retrieval.nearest import NearestVectors, best
from lorarec.retrieval.source import MAX_HISTORY, concatenate_ranges, latest_items

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

    max_history: ClassVar[int] = MAX_HISTORY

    def __init__(self, words: csr_matrix, rows: np.ndarray) -> None:
        self.words = words
        self.rows = rows
        self.items_of = words[rows].T.tocsr()

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        latest = latest_items(history, self.max_history)
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


@dataclass(frozen=True)
class TitleEmbeddings:
    """Embeddings of the titles of a catalogue, and the inverted files in which sources search for the nearest.

    Attributes:
        vectors: Embeddings of the titles of all items, which `lorarec.recommenders.centre` returned: (items, size).
        centres: Centres of the cells of an inverted file (see `lorarec.retrieval.nearest.cells`) of the items of a
            source, by the name of the source. The search of other sources is exact.
    """

    vectors: np.ndarray
    centres: Mapping[str, np.ndarray]


class EmbeddingSource:
    """Retrieve items by the inner product of their title's embedding with the sum of those of the latest items.

    The score is that of the recommender `TextSimilarity`. Unlike `TextSimilarity`, which scores given candidates, the
    source searches the whole catalogue: each history item counts once, and items with a score of 0 or less are not
    retrieved.

    Args:
        embeddings: Embeddings of the titles of all items, which `lorarec.recommenders.centre` returned: (items, size).
        rows: Rows of the items that may be returned.
        centres: Centres of the cells of an inverted file of `rows` (see `lorarec.retrieval.nearest.cells`), or None.
    """

    max_history: ClassVar[int] = MAX_HISTORY

    def __init__(self, embeddings: np.ndarray, rows: np.ndarray, centres: np.ndarray | None) -> None:
        self.embeddings = embeddings
        self.rows = rows
        self.nearest = NearestVectors(embeddings[rows], centres)

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        query = self.embeddings[latest_items(history, self.max_history)].sum(0)
        found = self.rows[self.nearest.search(query, count, blocked[self.rows])]
        return found[self.embeddings[found] @ query > 0]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the cosines of embeddings, or 0 if the cosine is negative."""
        return np.maximum(self.embeddings[rows] @ self.embeddings[history].T, 0)

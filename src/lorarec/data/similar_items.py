"""Known items with texts like that of a new item, which has no interactions of its own."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse

#: Number of known items that stand for a new one.
SIMILAR = 5


class SimilarItems:
    """Find the known items whose text vectors have the highest cosines with that of an item.

    Args:
        vectors: Text vectors of unit length (items, features), dense or sparse, such as those of
            `lorarec.data.title_vectors`.
        row: Row of each item in `vectors`.
        known: Ids of the known items.

    Examples:
        >>> from lorarec.data import SimilarItems, title_vectors
        >>> titles = {"a": "Toy Story", "b": "Heat", "c": "Toy Story 2"}
        >>> similar = SimilarItems(title_vectors(list(titles.values())), {"a": 0, "b": 1, "c": 2}, ["a", "b"])
        >>> positions, weights = similar.find("c")
        >>> positions.tolist(), weights.tolist()  # positions in the list of known items
        ([0, 1], [1.0, 0.0])
    """

    def __init__(self, vectors: np.ndarray | csr_matrix, row: Mapping[str, int], known: Sequence[str]) -> None:
        self._vectors: Any = vectors
        self._row = row
        self._known = np.array([row[item] for item in known], np.int64)
        self._known_vectors = vectors[self._known]
        self.find = lru_cache(maxsize=1 << 16)(self._find)

    def _find(self, item: str) -> tuple[np.ndarray, np.ndarray]:
        """Return positions in the list of known items and weights, both (at most `SIMILAR`,).

        The weights are proportional to the cosines and sum to 1; they are all 0 if no text is similar. The item itself
        is not among the results.
        """
        if item not in self._row or not len(self._known):
            return np.empty(0, np.int64), np.empty(0)
        row = self._row[item]
        vector = self._vectors[row : row + 1] if issparse(self._vectors) else self._vectors[row]
        products = self._known_vectors @ vector.T
        cosines = products.toarray()[:, 0] if issparse(products) else np.maximum(products, 0)
        cosines[self._known == row] = 0
        nearest = np.argsort(-cosines, kind="stable")[:SIMILAR]
        total = cosines[nearest].sum()
        return nearest, cosines[nearest] / total if total else np.zeros(len(nearest))

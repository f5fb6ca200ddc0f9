"""Known items with titles like that of a new item, which has no interactions of its own."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from lorarec.data.tfidf import title_vectors

#: Number of known items that stand for a new one.
SIMILAR = 5


class SimilarItems:
    """Find the known items whose titles have the highest cosines of TF-IDF vectors with that of an item.

    Args:
        titles: The title of each item by its id, in the order of the catalogue.
        known: Ids of the known items.

    Examples:
        >>> from lorarec.data import SimilarItems
        >>> similar = SimilarItems({"a": "Toy Story", "b": "Heat", "c": "Toy Story 2"}, ["a", "b"])
        >>> positions, weights = similar.find("c")
        >>> positions.tolist(), weights.tolist()  # positions in the list of known items
        ([0, 1], [1.0, 0.0])
    """

    def __init__(self, titles: Mapping[str, str], known: Sequence[str]) -> None:
        self._vectors = title_vectors(list(titles.values()))
        self._row = {item: row for row, item in enumerate(titles)}
        self._known = np.array([self._row[item] for item in known], np.int64)
        self._known_vectors = self._vectors[self._known]
        self.find = lru_cache(maxsize=1 << 16)(self._find)

    def _find(self, item: str) -> tuple[np.ndarray, np.ndarray]:
        """Return positions in the list of known items and weights, both (at most `SIMILAR`,).

        The weights are proportional to the cosines and sum to 1; they are all 0 if no title is similar. The item itself
        is not among the results.
        """
        if item not in self._row or not len(self._known):
            return np.empty(0, np.int64), np.empty(0)
        row = self._row[item]
        cosines = (self._known_vectors @ self._vectors[row].T).toarray()[:, 0]
        cosines[self._known == row] = 0
        nearest = np.argsort(-cosines, kind="stable")[:SIMILAR]
        total = cosines[nearest].sum()
        return nearest, cosines[nearest] / total if total else np.zeros(len(nearest))

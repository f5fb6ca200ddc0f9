"""The vectors with the largest inner product with a query: exactly, or through faiss where the catalogue is large."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

#: Beyond this many vectors faiss answers many times faster than the exact product (of 200,000 vectors of 64 numbers, in
#: under 1 ms against 8 ms), and finds most of the same items: nearly all where vectors lie in clusters.
EXACT_UP_TO = 100_000
#: Cells of the inverted file that are searched.
PROBES = 64
#: Vectors per cell that k-means sees: more of them cost minutes and move the cells little.
SAMPLE = 64


class NearestVectors:
    """Search among vectors.

    Args:
        vectors: (n, d) float32.
        cells: (c, d) centres of an inverted file, see `cells`; without them, or where faiss is not installed, the
            search is exact.
        probes: cells that are searched.
    """

    def __init__(self, vectors: np.ndarray, cells: np.ndarray | None = None, probes: int = PROBES) -> None:
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.probes = probes
        self._file: Any = None
        if cells is not None and (faiss := _faiss()):
            centres = faiss.IndexFlatIP(cells.shape[1])
            centres.add(np.ascontiguousarray(cells, np.float32))
            self._file = faiss.IndexIVFFlat(centres, cells.shape[1], len(cells), faiss.METRIC_INNER_PRODUCT)
            self._file.is_trained = True
            self._file.add(self.vectors)

    def search(self, query: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """Rows of the largest inner products with the query (d,), best first, at most `count`.

        Args:
            blocked: (n,) True for rows that are not to be found.
        """
        free = len(blocked) - int(blocked.sum())
        query = query.astype(np.float32)
        if 4 * free < len(blocked):  # few are left by an allow list; they may all lie in cells that are not searched
            rows = np.flatnonzero(~blocked)
            return rows[best(self.vectors[rows] @ query, count)]
        if self._file is None:
            scores = self.vectors @ query
            scores[blocked] = -np.inf
            return best(scores, min(count, free))
        faiss = _faiss()
        allowed = faiss.IDSelectorBitmap(np.packbits(~blocked, bitorder="little"))
        chosen = faiss.SearchParametersIVF(nprobe=self.probes, sel=allowed)
        found = self._file.search(query[None], count, params=chosen)[1][0]
        return found[found >= 0]


def cells(vectors: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Centres (c, d) of an inverted file over many vectors (n, d), c the root of n; None where exact search is as good.

    None as well where faiss is not installed (`pip install 'lorarec[index]'`).
    """
    faiss = _faiss()
    if len(vectors) <= EXACT_UP_TO or not faiss:
        return None
    kmeans = faiss.Kmeans(
        vectors.shape[1], int(len(vectors) ** 0.5), seed=seed, max_points_per_centroid=SAMPLE, min_points_per_centroid=1
    )
    kmeans.train(np.ascontiguousarray(vectors, np.float32))
    return kmeans.centroids


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest scores (n,), at most `count`, best first; of equal scores the first place is taken."""
    places = np.arange(len(scores))
    if len(scores) > count:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]


@cache
def _faiss() -> Any:
    """The module, or None where it is not installed. Untyped: its stubs lack the arguments used here."""
    try:
        return import_module("faiss")
    except ImportError:
        return None

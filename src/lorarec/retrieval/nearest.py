"""Search for the vectors with the largest inner product with a query: exact, or with faiss in large catalogues."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

#: Maximum number of vectors for exact search. Beyond it, faiss is many times faster (under 1 ms instead of 8 ms for
#: 200,000 vectors of size 64) and finds most of the same items, nearly all of them if the vectors are clustered.
EXACT_UP_TO = 100_000
#: Number of cells of the inverted file that are searched.
PROBES = 64
#: Number of vectors per cell that k-means reads: more of them cost minutes and hardly change the cells.
SAMPLE = 64


class NearestVectors:
    """Search for the nearest of many vectors.

    Args:
        vectors: Vectors (n, size), float32.
        cells: Centres of an inverted file (cells, size), see `cells`. The search is exact if it is None or if faiss is
            not installed.
        probes: Number of cells that are searched.
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
        """Return the rows with the largest inner products with a query, the best first.

        Args:
            query: Query vector (size,).
            count: Maximum number of rows.
            blocked: Mask of the rows that must not be returned (n,).
        """
        free = len(blocked) - int(blocked.sum())
        query = query.astype(np.float32)
        if 4 * free < len(blocked):  # all allowed rows may be in cells that are not searched
            rows = np.flatnonzero(~blocked)
            return rows[best(self.vectors[rows] @ query, count)]
        if self._file is None:
            scores = self.vectors @ query
            scores[blocked] = -np.inf
            return best(scores, min(count, free))
        faiss = _faiss()
        allowed = faiss.IDSelectorBitmap(np.packbits(~blocked, bitorder="little"))
        chosen = faiss.SearchParametersIVF(nprobe=self.probes, sel=allowed)
        neighbours = self._file.search(query[None], count, params=chosen)[1][0]
        return neighbours[neighbours >= 0]


def cells(vectors: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Return the centres of an inverted file, about sqrt(n) of them (cells, size), or None if search should be exact.

    Search should be exact for at most `EXACT_UP_TO` vectors, or if faiss is not installed
    (`pip install 'lorarec[index]'`).

    Args:
        vectors: Vectors (n, size).
        seed: Seed of k-means.
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
    """Return the positions of the `count` largest scores (n,), the best first and of equal scores the first."""
    places = np.arange(len(scores))
    if len(scores) > count:
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]


@cache
def _faiss() -> Any:
    """Return faiss, or None if it is not installed. It is untyped, since its stubs lack arguments used here."""
    try:
        return import_module("faiss")
    except ImportError:
        return None

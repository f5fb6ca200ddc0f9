"""Scores that are inner products: of what is known of a user with the vectors of items."""

from collections.abc import Callable

import numpy as np
import polars as pl
import torch

from lorarec.data import CANDIDATES

_CASES_AT_ONCE = 512
#: Score of items that a system knows nothing of: below all others, so that they hold the places that are left.
UNKNOWN = float(np.finfo(np.float32).min)


class DotProductScorer:
    """A scorer for candidates that have a vector; others come last, in the order of the candidates.

    Args:
        row: item id -> its place among the vectors.
        vectors: (items, width).
        queries: from cases to (cases, width).
        about: one line for reports.
        biases: (items,) added to the products.
    """

    def __init__(
        self,
        row: dict[str, int],
        vectors: torch.Tensor,
        queries: Callable[[pl.DataFrame], torch.Tensor],
        about: str,
        biases: torch.Tensor | None = None,
    ) -> None:
        self.row = row
        # numpy's, since a product of thirty vectors costs torch less than its own calls.
        self.vectors = vectors.detach().numpy()
        self.queries = queries
        self.about = about
        self.biases = np.zeros(len(vectors), np.float32) if biases is None else biases.detach().numpy()

    @torch.no_grad()
    def __call__(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case."""
        found: list[np.ndarray] = []
        for batch in cases.iter_slices(_CASES_AT_ONCE):
            for query, candidates in zip(self.queries(batch).numpy(), batch[CANDIDATES].to_list(), strict=True):
                rows = np.array([self.row.get(item, -1) for item in candidates])
                scores = self.vectors[rows] @ query + self.biases[rows]
                scores[rows < 0] = UNKNOWN
                found.append(scores)
        return found

"""Scores that are inner products of query vectors and item vectors."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import torch

from lorarec.data import CANDIDATES, HISTORY
from lorarec.recommenders.interactions import known_items

_CASES_AT_ONCE = 512
#: Score of items without a vector. It is below all others, so that these items are ranked last.
UNKNOWN_ITEM_SCORE = float(np.finfo(np.float32).min)


class DotProductScorer:
    """Score a candidate by the inner product of its vector with the query vector of the case.

    Candidates without a vector are ranked last, in the order in which they are given.

    Args:
        index: Position of each item among the vectors.
        vectors: Item vectors (items, hidden_size).
        queries: Function from cases to query vectors (cases, hidden_size).
        about: One line for reports.
        biases: Item biases (items,) that are added to the inner products, or None.
    """

    def __init__(
        self,
        index: Mapping[str, int],
        vectors: torch.Tensor,
        queries: Callable[[pl.DataFrame], torch.Tensor],
        about: str = "",
        biases: torch.Tensor | None = None,
    ) -> None:
        self.index = index
        self.items = pl.Series(list(index), dtype=pl.String)
        self.rows = np.array([*index.values(), -1], np.int64)  # the last is for items without a vector
        # NumPy: for thirty vectors, the call overhead of torch is more than the product costs.
        self.vectors = vectors.detach().numpy()
        self.queries = queries
        self.about = about
        self.biases = np.zeros(len(vectors), np.float32) if biases is None else biases.detach().numpy()

    @torch.no_grad()
    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""
        scores: list[np.ndarray] = []
        for batch in cases.iter_slices(_CASES_AT_ONCE):
            for query, rows in zip(self.queries(batch).numpy(), self._rows(batch[CANDIDATES]), strict=True):
                of_case = self.vectors[rows] @ query + self.biases[rows]
                of_case[rows < 0] = UNKNOWN_ITEM_SCORE
                scores.append(of_case)
        return scores

    def _rows(self, lists: pl.Series) -> list[np.ndarray]:
        """Return the positions of lists of items among the vectors, -1 for items without a vector."""
        if len(lists) == 1:  # of a single request, for which the calls of polars would cost more
            return [np.array([self.index.get(item, -1) for item in items], np.int64) for items in lists.to_list()]
        items = lists.explode(empty_as_null=False)
        codes = items.cast(pl.Enum(self.items), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        return np.split(self.rows[codes], np.cumsum(lists.list.len().to_numpy().astype(np.int64))[:-1])


def history_scorer(
    index: Mapping[str, int],
    vectors: torch.Tensor,
    encode: Callable[[list[np.ndarray]], torch.Tensor],
    about: str = "",
) -> DotProductScorer:
    """Return a scorer whose query vector is an encoded history; all items have score 0 if no history item is known.

    Args:
        index: Position of each item among the vectors.
        vectors: Item vectors (items, hidden_size).
        encode: Function from histories of at least one position each to vectors (histories, hidden_size).
        about: One line for reports.
    """

    def queries(cases: pl.DataFrame) -> torch.Tensor:
        histories = known_items(cases[HISTORY], index)
        encoded = torch.zeros(len(histories), vectors.shape[1])
        not_empty = [case for case, history in enumerate(histories) if len(history)]
        if not_empty:
            encoded[not_empty] = encode([histories[case] for case in not_empty])
        return encoded

    return DotProductScorer(index, vectors, queries, about)

"""The protocol of everything that scores candidates."""

from typing import Protocol

import numpy as np
import polars as pl


class Scorer(Protocol):
    """An object that scores the candidates of cases, such as a fitted recommender or an adapter.

    A scorer may have two more attributes: `about`, one line for reports, which is read after scoring; and
    `returns_ranks`, which is True if `score` returns ranks of the candidates instead of scores (1 is the best, infinite
    is a candidate without a rank).
    """

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case.

        Args:
            cases: Columns `user_id`, `history` and `candidates`; the last two hold lists of item ids.

        Returns:
            One array (candidates,) per case, in which the best candidate has the highest score.
        """
        ...

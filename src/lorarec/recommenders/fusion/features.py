"""Features of the fusion: scores and ranks of several scorers, apart for known and for new items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorarec.recommenders.fusion.candidate_scores import CandidateScores

NEW_ITEM = "new item"


@dataclass(frozen=True)
class FusionFeatures:
    """The features of each candidate as functions of its scores.

    Each scorer gives five features: its standardised score, its log-rank among the candidates and the product of the
    score with the logarithm of the history length for known items; and the score and the log-rank for new items. The
    last feature is 1 for new items.

    Attributes:
        scorers: Names of the scorers.
        means: Mean score of each scorer over the cases that `fit` was given (scorers,).
        deviations: Standard deviation of each scorer's scores (scorers,).
        log_length: Mean of log(1 + history length).
    """

    scorers: tuple[str, ...]
    means: np.ndarray
    deviations: np.ndarray
    log_length: float

    @classmethod
    def fit(cls, scorers: Sequence[str], cases: CandidateScores) -> "FusionFeatures":
        """Return the features with the means and deviations of these cases."""
        deviations = cases.scores.std(0)
        scale = np.where(deviations > 0, deviations, 1)
        return cls(tuple(scorers), cases.scores.mean(0), scale, float(np.log1p(cases.history_lengths).mean()))

    @property
    def names(self) -> list[str]:
        """Names of the features, in the order of the columns of `matrix`."""
        kinds = ("{}", "log rank by {}", "{} x log history length", "{}, new item", "log rank by {}, new item")
        return [kind.format(scorer) for kind in kinds for scorer in self.scorers] + [NEW_ITEM]

    @property
    def sources(self) -> np.ndarray:
        """Position of the scorer of each feature (features,); `len(scorers)` for the last feature."""
        count = len(self.scorers)
        return np.append(np.tile(np.arange(count), 5), count)

    def matrix(self, cases: CandidateScores) -> np.ndarray:
        """Return the features (candidates, features)."""
        scores = (cases.scores - self.means) / self.deviations
        ranks = -np.log(mean_ranks(cases.scores, cases.sizes))
        lengths = np.repeat(np.log1p(cases.history_lengths) - self.log_length, cases.sizes)[:, None]
        new = cases.new[:, None]
        known = ~new
        return np.hstack([scores * known, ranks * known, scores * lengths * known, scores * new, ranks * new, new])


def mean_ranks(scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the rank of each candidate within its case, 1 for the highest score; ties share their mean rank.

    Args:
        scores: Scores (candidates, scorers).
        sizes: Number of candidates of each case (cases,).
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.arange(len(owner)) - starts + 1
    ranks = np.empty(scores.shape)
    for column in range(scores.shape[1]):
        values = scores[:, column]
        order = np.lexsort((-values, owner))
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(owner[order]) != 0) | (np.diff(values[order]) != 0)
        group = np.cumsum(first) - 1
        means = np.bincount(group, place) / np.bincount(group)
        ranks[order, column] = means[group]
    return ranks

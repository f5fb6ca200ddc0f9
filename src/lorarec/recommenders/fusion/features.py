"""Features of the fusion: scores of several scorers, apart for known and for new items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorarec.recommenders.fusion.candidate_scores import CandidateScores

NEW_ITEM = "new item"
#: Largest range of scores that counts as rounding error, as a share of the largest absolute score.
_ALIKE = 1e-12


def feature_names(scorers: Sequence[str]) -> list[str]:
    """Return the names of the features of scorers.

    Examples:
        >>> feature_names(["sasrec"])
        ['sasrec', 'sasrec x log history length', 'sasrec, new item', 'new item']
    """
    kinds = ("{}", "{} x log history length", "{}, new item")
    return [kind.format(scorer) for kind in kinds for scorer in scorers] + [NEW_ITEM]


@dataclass(frozen=True)
class FusionFeatures:
    """The features of each candidate as functions of its scores.

    Each scorer gives three features: its standardised score and the product of that score with the logarithm of the
    history length, for known items; and its standardised score for new items. The last feature is 1 for new items.

    No feature depends on the other candidates, given the scores. Weights that were fitted to uniformly drawn candidates
    are therefore right for a whole catalogue as well (McFadden, 1978: the uniform conditioning property).

    Attributes:
        scorers: Names of the scorers.
        means: Mean score of each scorer over the cases that `fit` was given (scorers,).
        deviations: Standard deviation of each scorer's scores (scorers,); 1 for a scorer whose scores are all alike.
        log_length: Mean of log(1 + history length).
    """

    scorers: tuple[str, ...]
    means: np.ndarray
    deviations: np.ndarray
    log_length: float

    @classmethod
    def fit(cls, scorers: Sequence[str], cases: CandidateScores) -> "FusionFeatures":
        """Return the features with the means and deviations of these cases."""
        # The deviation of equal scores is rounding error: as a divisor, it would make any other score huge.
        alike = np.ptp(cases.scores, axis=0) <= _ALIKE * np.abs(cases.scores).max(0)
        scale = np.where(alike, 1, cases.scores.std(0))
        return cls(tuple(scorers), cases.scores.mean(0), scale, float(np.log1p(cases.history_lengths).mean()))

    @property
    def names(self) -> list[str]:
        """Names of the features, in the order of the columns of `matrix`."""
        return feature_names(self.scorers)

    @property
    def sources(self) -> np.ndarray:
        """Position of the scorer of each feature (features,); `len(scorers)` for the last feature."""
        count = len(self.scorers)
        return np.append(np.tile(np.arange(count), 3), count)

    @property
    def of_new_items(self) -> np.ndarray:
        """Whether each feature is 0 for known items (features,)."""
        count = len(self.scorers)
        return np.repeat([False, True], [2 * count, count + 1])

    def matrix(self, cases: CandidateScores) -> np.ndarray:
        """Return the features (candidates, features)."""
        scores = (cases.scores - self.means) / self.deviations
        lengths = np.repeat(np.log1p(cases.history_lengths) - self.log_length, cases.sizes)[:, None]
        new = cases.new[:, None]
        known = scores * ~new
        return np.hstack([known, known * lengths, scores * new, new])

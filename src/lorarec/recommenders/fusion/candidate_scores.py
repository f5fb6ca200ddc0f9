"""Scores of the same candidates by several scorers."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CandidateScores:
    """Scores of the candidates of cases by several scorers; the candidates of all cases stand one after the other.

    Attributes:
        scores: Scores (candidates, scorers).
        new: Whether each candidate is a new item (candidates,).
        sizes: Number of candidates of each case (cases,).
        history_lengths: Number of items of the history of each case (cases,).
    """

    scores: np.ndarray
    new: np.ndarray
    sizes: np.ndarray
    history_lengths: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Position of the first candidate of each case (cases,)."""
        return np.cumsum(self.sizes) - self.sizes

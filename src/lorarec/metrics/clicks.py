"""Figures of predicted click probabilities: AUC, log loss, accuracy and calibration, with an interval and a test."""

import numpy as np
from scipy import stats

from lorarec.errors import LorarecError

#: Probabilities nearer to 0 or 1 count as this far from it in the log loss.
EPSILON = 1e-7
BINS = 15


def auc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of (clicked, not clicked) pairs in the right order; a tie counts half.

    Args:
        probabilities: (events,) any scores that grow with the chance of a click.
        labels: (events,) 1 for a click, 0 for none.

    Raises:
        LorarecError: unequal lengths, a score that is NaN, or labels all alike, of which no pair can be made.
    """
    scores, clicked = _checked(probabilities, labels)
    ranks = stats.rankdata(scores)
    positives = int(clicked.sum())
    negatives = len(clicked) - positives
    return float((ranks[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of every event in nats, (events,)."""
    p = np.clip(np.asarray(probabilities, np.float64), EPSILON, 1 - EPSILON)
    return -np.where(np.asarray(labels) == 1, np.log(p), np.log1p(-p))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where the likelier answer is the label, a probability of one half counting as a click, (events,)."""
    return ((np.asarray(probabilities) >= 0.5) == (np.asarray(labels) == 1)).astype(np.float64)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: |mean probability - share of clicks| over equally wide bins, weighted by size.

    (Guo et al. 2017, section 2.)
    """
    p, clicked = np.asarray(probabilities, np.float64), np.asarray(labels) == 1
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, p - clicked, minlength=bins)
    return float(np.abs(gap).sum() / len(p))


def auc_interval(
    probabilities: np.ndarray, labels: np.ndarray, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUC over events; resamples whose labels are all alike are left out."""
    scores, clicked = _checked(probabilities, labels)
    # Equal scores share a group, so that one pass over the groups gives the AUC of any resample.
    _, group = np.unique(scores, return_inverse=True)
    count, events = int(group.max()) + 1, len(scores)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        drawn = rng.integers(events, size=events)
        positive = np.bincount(group[drawn[clicked[drawn]]], minlength=count)
        negative = np.bincount(group[drawn[~clicked[drawn]]], minlength=count)
        pairs = float(positive.sum()) * float(negative.sum())
        if pairs:
            below = np.cumsum(negative) - negative
            found.append(float((positive * (below + negative / 2)).sum()) / pairs)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def delong_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Two-sided p-value that two AUCs on the same events are equal (DeLong et al. 1988; mid-ranks: Sun and Xu 2014).

    Returns:
        p; 1 where the two rank the events alike.

    Raises:
        LorarecError: as `auc` does.
    """
    _, clicked = _checked(first, labels)
    structures = [_placements(_checked(scores, labels)[0], clicked) for scores in (first, second)]
    difference = structures[0][2] - structures[1][2]
    variance = sum(
        np.var(structures[0][side] - structures[1][side], ddof=1) / len(structures[0][side])
        for side in (0, 1)
        if len(structures[0][side]) > 1
    )
    if variance == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance)))


def _placements(scores: np.ndarray, clicked: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Share of negatives below each positive, share of positives above each negative, and the AUC."""
    every, positive, negative = (stats.rankdata(part) for part in (scores, scores[clicked], scores[~clicked]))
    above = (every[clicked] - positive) / len(negative)
    below = 1 - (every[~clicked] - negative) / len(positive)
    return above, below, float(above.mean())


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, clicked = np.asarray(probabilities, np.float64), np.asarray(labels) == 1
    if scores.shape != clicked.shape:
        raise LorarecError(f"scores of {len(scores)} events do not fit {len(clicked)} labels")
    if np.isnan(scores).any():
        raise LorarecError(f"event {int(np.isnan(scores).argmax())}: a score is NaN")
    if clicked.all() or not clicked.any():
        raise LorarecError("all labels are alike, so there is no AUC: use more events or another threshold")
    return scores, clicked

"""Metrics of predicted click probabilities: AUC, log loss, accuracy and calibration, with intervals and tests.

Labels are 1 for a click and 0 otherwise. Every function raises a LorarecError if there are no events, if lengths
differ, if a label is neither 0 nor 1, or if a score is NaN.
"""

import numpy as np
import scipy

from lorarec.errors import LorarecError
from lorarec.metrics.significance import check_interval, resampled_p_value

#: Smallest distance of a probability from 0 and 1 in the log loss.
EPSILON = 1e-7


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve: the share of correctly ordered pairs of a click and another event.

    A tie counts as half a pair.

    Args:
        scores: Probabilities (events,), or other scores that grow with the probability of a click.
        labels: Labels (events,).

    Raises:
        LorarecError: All labels are the same.

    Examples:
        >>> import numpy as np
        >>> from lorarec.metrics import auc
        >>> auc(np.array([0.9, 0.2, 0.4]), np.array([1, 0, 1]))
        1.0
    """
    scores, clicked = _two_classes(scores, labels)
    positives = int(clicked.sum())
    negatives = len(clicked) - positives
    rank_sum = scipy.stats.rankdata(scores)[clicked].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of every event in nats, (events,)."""
    p, clicked = _probabilities(probabilities, labels)
    p = p.clip(EPSILON, 1 - EPSILON)
    return -np.where(clicked, np.log(p), np.log1p(-p))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 1 for every event whose label is predicted with a threshold of 0.5, otherwise 0, (events,)."""
    p, clicked = _probabilities(probabilities, labels)
    return ((p >= 0.5) == clicked).astype(np.float64)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, section 2).

    It is the mean of |mean probability - share of clicks| over bins of equal width, weighted by their sizes.
    """
    place, gap = _gaps(probabilities, labels, bins)
    return float(np.abs(np.bincount(place, gap)).sum() / len(gap))


def calibration_interval(
    probabilities: np.ndarray,
    labels: np.ndarray,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    bins: int = 15,
) -> tuple[float, float]:
    """Return the basic bootstrap interval of the calibration error over events, truncated at 0.

    (Davison and Hinkley 1997, section 5.2.)

    Resampling adds noise, so that resamples are worse calibrated than the events that they are drawn from. The basic
    interval reflects the quantiles at the error and so removes this bias; the percentile interval of a well calibrated
    model would be above its error.

    Args:
        probabilities: Probabilities (events,).
        labels: Labels (events,).
        level: Share of the resampled errors between the quantiles.
        samples: Number of resamples.
        seed: Seed of the resampling.
        bins: Number of bins.

    Raises:
        LorarecError: A value is not a probability, or the level or the number of samples is out of range.
    """
    check_interval(level, samples)
    resampled = _resampled_errors(probabilities, labels, samples, seed, bins)
    tail = (1 - level) / 2
    low, high = 2 * calibration_error(probabilities, labels, bins) - np.quantile(resampled, [1 - tail, tail])
    return max(0.0, float(low)), max(0.0, float(high))


def calibration_test(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, samples: int = 1000, seed: int = 0, bins: int = 15
) -> float:
    """Return the two-sided p-value of equal calibration errors of two models, by paired bootstrap over events.

    Args:
        first: Probabilities (events,) of one model.
        second: Probabilities (events,) of another.
        labels: Labels (events,).
        samples: Number of resamples, each of which is the same for both models.
        seed: Seed of the resampling.
        bins: Number of bins.

    Returns:
        The p-value, at least 2 / (samples + 1); 1 if the two never differ.

    Raises:
        LorarecError: A value is not a probability, or there are no resamples.
    """
    errors = [_resampled_errors(each, labels, samples, seed, bins) for each in (first, second)]
    return resampled_p_value(errors[0] - errors[1])


def auc_interval(
    scores: np.ndarray, labels: np.ndarray, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the AUC over events; resamples with equal labels are drawn again.

    Args:
        scores: Scores (events,) as for `auc`.
        labels: Labels (events,).
        level: Share of the resampled AUCs that the interval contains.
        samples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        LorarecError: All labels are the same, or the level or the number of samples is out of range.
    """
    check_interval(level, samples)
    scores, clicked = _two_classes(scores, labels)
    # Equal scores share a group, so that one pass over the groups gives the AUC of any resample.
    _, group = np.unique(scores, return_inverse=True)
    count, events = int(group.max()) + 1, len(scores)
    rng = np.random.default_rng(seed)
    resampled: list[float] = []
    while len(resampled) < samples:
        drawn = rng.integers(events, size=events)
        positive = np.bincount(group[drawn[clicked[drawn]]], minlength=count)
        negative = np.bincount(group[drawn[~clicked[drawn]]], minlength=count)
        pairs = float(positive.sum()) * float(negative.sum())
        if pairs:
            below = np.cumsum(negative) - negative
            resampled.append(float((positive * (below + negative / 2)).sum()) / pairs)
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def delong_test(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Return the two-sided p-value of equal AUCs on the same events (DeLong et al. 1988; mid-ranks: Sun and Xu 2014).

    Args:
        first: Scores (events,) of one model.
        second: Scores (events,) of another.
        labels: Labels (events,).

    Returns:
        The p-value; 1 if the two rank the events alike.

    Raises:
        LorarecError: There are fewer than two events of a label.
    """
    above, below = zip(_placements(first, labels), _placements(second, labels), strict=True)
    positive, negative = above[0] - above[1], below[0] - below[1]
    if min(len(positive), len(negative)) < 2:
        raise LorarecError("DeLong's test needs two events of either label: use more events")
    variance = positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)
    if variance == 0:
        return 1.0 if positive.mean() == 0 else 0.0
    return float(2 * scipy.stats.norm.sf(abs(positive.mean()) / np.sqrt(variance)))


def _gaps(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin of each event, and its probability minus its label."""
    p, clicked = _probabilities(probabilities, labels)
    return np.minimum((p * bins).astype(np.int64), bins - 1), p - clicked


def _resampled_errors(probabilities: np.ndarray, labels: np.ndarray, samples: int, seed: int, bins: int) -> np.ndarray:
    """Return the calibration errors (samples,) of resamples, which depend only on the seed and the number of events."""
    place, gap = _gaps(probabilities, labels, bins)
    rng = np.random.default_rng(seed)
    resampled = np.empty(samples)
    for sample in range(samples):
        drawn = rng.integers(len(gap), size=len(gap))
        resampled[sample] = np.abs(np.bincount(place[drawn], gap[drawn])).sum() / len(gap)
    return resampled


def _placements(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of negatives below each positive and of positives above each negative; the means are the AUC."""
    scores, clicked = _two_classes(scores, labels)
    every, positive, negative = (scipy.stats.rankdata(part) for part in (scores, scores[clicked], scores[~clicked]))
    return (every[clicked] - positive) / len(negative), 1 - (every[~clicked] - negative) / len(positive)


def _two_classes(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, clicked = _events(scores, labels)
    if clicked.all() or not clicked.any():
        raise LorarecError("all labels are alike, so there is no AUC: use more events or another threshold")
    return scores, clicked


def _probabilities(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, clicked = _events(values, labels)
    outside = (p < 0) | (p > 1)
    if outside.any():
        event = int(outside.argmax())
        raise LorarecError(f"event {event}: {p[event]:g} is no probability")
    return p, clicked


def _events(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    clicked = labels == 1
    if scores.shape != clicked.shape:
        raise LorarecError(f"scores of {len(scores)} events do not fit {len(clicked)} labels")
    if len(scores) == 0:
        raise LorarecError("no events: a metric needs at least one")
    other = ~clicked & (labels != 0)
    if other.any():
        event = int(other.argmax())
        raise LorarecError(f"event {event}: the label {labels[event]} is neither 0 nor 1")
    if np.isnan(scores).any():
        raise LorarecError(f"event {int(np.isnan(scores).argmax())}: a score is NaN")
    return scores, clicked

"""Bootstrap intervals, paired tests of means over cases, and corrections for the number of tests."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import scipy

from lorarec.errors import LorarecError

#: Names of the corrections of `adjust_p_values`.
Correction = Literal["holm", "benjamini-hochberg"]
_DRAWS_AT_ONCE = 1 << 22
#: Largest difference that counts as none: rounding makes means of the same values differ, in one direction even.
_ROUNDING = 1e-12


def bootstrap_interval(
    values: np.ndarray, level: float = 0.95, samples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile bootstrap interval of the mean over cases (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: Values (cases,), or (cases, metrics) for several metrics of the same cases, which share the resamples.
        level: Share of the resampled means that the interval contains.
        samples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The lower and the upper end, each of the shape of `values[0]`.

    Raises:
        LorarecError: There are no cases, or the level or the number of samples is out of range.
    """
    check_interval(level, samples)
    tail = (1 - level) / 2
    low, high = np.quantile(resampled_means(values, samples, seed), [tail, 1 - tail], axis=0)
    return low, high


def resampled_means(values: np.ndarray, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return the means over cases of bootstrap resamples, which draw as many cases with replacement.

    Args:
        values: Values (cases,), or (cases, metrics) for several metrics of the same cases, which share the resamples.
        samples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        Means (samples,) or (samples, metrics).

    Raises:
        LorarecError: There are no cases.
    """
    values = np.asarray(values, dtype=np.float64)
    cases = len(values)
    if cases == 0:
        raise LorarecError("no cases: an interval needs at least one")
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // cases)
    means = []
    for start in range(0, samples, at_once):
        rows = min(at_once, samples - start)
        drawn = rng.integers(cases, size=(rows, cases)) + cases * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases)
        means.append(times.astype(np.float64) @ values / cases)
    return np.concatenate(means)


def paired_t_test(a: np.ndarray, b: np.ndarray) -> float:
    """Return the two-sided p-value of Student's paired t-test over cases.

    Args:
        a: Values (cases,) of one ranker.
        b: Values (cases,) of another on the same cases.

    Returns:
        The p-value; 1 if the two never differ by more than rounding, or there is only one case.

    Raises:
        LorarecError: `a` and `b` differ in shape.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise LorarecError(f"a paired test needs values of the same cases, not of {a.shape} and {b.shape}")
    difference, rounding = a - b, _ROUNDING * np.maximum(np.abs(a), np.abs(b))
    difference[np.abs(difference) <= rounding] = 0
    if len(difference) < 2 or not difference.any():
        return 1.0
    if np.ptp(difference) <= rounding.max():
        return 0.0
    return float(scipy.stats.ttest_1samp(difference, 0).pvalue)


def resampled_p_value(differences: np.ndarray) -> float:
    """Return the two-sided p-value of a paired bootstrap: twice the share of differences on the rarer side of 0.

    The sample itself is counted as one more resample on that side (Davison and Hinkley 1997, chapter 4).

    Args:
        differences: Differences (samples,) of a metric of two models, each from one resample of the cases. Those of at
            most 1e-12 are taken for rounding, since metrics are numbers around 1.

    Returns:
        The p-value; 1 if the two never differ.

    Raises:
        LorarecError: There are no resamples.
    """
    differences = np.asarray(differences, dtype=np.float64)
    if len(differences) == 0:
        raise LorarecError("no resamples: a test needs at least one")
    rarer = min(int((differences <= _ROUNDING).sum()), int((differences >= -_ROUNDING).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences) + 1))


def adjust_p_values(p_values: npt.ArrayLike, correction: Correction = "holm") -> np.ndarray:
    """Return p-values that are corrected for the number of tests, each to be compared with the level of a single test.

    `holm` (Holm 1979, the step-down procedure) bounds the probability that any true null hypothesis is rejected, and
    `benjamini-hochberg` (Benjamini and Hochberg 1995) the expected share of true ones among those that are rejected, if
    the tests are independent or positively dependent.

    Args:
        p_values: p-values (tests,) of all tests of one family.
        correction: Name of the correction.

    Returns:
        Corrected p-values (tests,), at most 1 and not below those given.

    Raises:
        LorarecError: The correction is unknown, or a value is not between 0 and 1.
    """
    check_correction(correction)
    p_values = np.asarray(p_values, dtype=np.float64)
    if not np.all((p_values >= 0) & (p_values <= 1)):
        raise LorarecError("a p-value is not between 0 and 1: it cannot be corrected")
    if correction == "benjamini-hochberg":
        return np.asarray(scipy.stats.false_discovery_control(p_values))
    order = np.argsort(p_values, kind="stable")
    stepwise = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepwise), 1)
    return adjusted


def check_correction(correction: str) -> None:
    """Raise a LorarecError unless `adjust_p_values` has a correction of this name."""
    if correction not in get_args(Correction):
        raise LorarecError(f"no correction {correction!r} of p-values: choose one of {', '.join(get_args(Correction))}")


def check_interval(level: float, samples: int) -> None:
    """Raise a LorarecError unless an interval of this level from so many resamples exists."""
    if not 0 < level < 1 or samples < 1:
        raise LorarecError(
            f"an interval needs a level between 0 and 1 and at least one sample, got {level} and {samples}"
        )

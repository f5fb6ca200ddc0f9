"""Metrics of click probabilities against scikit-learn and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.metrics import log_loss as reference_log_loss

from lorarec.errors import LorarecError
from lorarec.metrics import classification as clicks


def _events(seed: int, count: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], rng.integers(2, size=count)])
    p = np.clip(0.3 * labels + 0.7 * rng.random(len(labels)), 0, 1)
    return (p.round(1) if ties else p), labels


@given(st.integers(0, 10_000), st.integers(1, 60), st.booleans())
@settings(max_examples=50)
def test_figures_are_those_of_scikit_learn(seed: int, count: int, ties: bool) -> None:
    p, labels = _events(seed, count, ties)
    assert clicks.auc(p, labels) == pytest.approx(roc_auc_score(labels, p))
    clipped = np.clip(p, clicks.EPSILON, 1 - clicks.EPSILON)
    assert clicks.log_loss(p, labels).mean() == pytest.approx(reference_log_loss(labels, clipped))
    assert clicks.accuracy(p, labels).mean() == pytest.approx(accuracy_score(labels, p >= 0.5))


def test_calibration_error() -> None:
    assert clicks.calibration_error(np.full(10, 0.3), np.repeat([1, 0], [3, 7])) == pytest.approx(0)
    assert clicks.calibration_error(np.array([0.9, 0.9, 0.1, 1.0]), np.array([1, 0, 0, 1])) == pytest.approx(0.9 / 4)


def _calibrated(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.1, 0.8, count)
    return p, (rng.random(count) < p).astype(int)


def test_calibration_interval_is_that_of_resampled_errors() -> None:
    p, labels = _calibrated(1, 40)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        drawn = rng.integers(40, size=40)
        found.append(clicks.calibration_error(p[drawn], labels[drawn]))
    ends = 2 * clicks.calibration_error(p, labels) - np.quantile(found, [0.975, 0.025])
    assert clicks.calibration_interval(p, labels, samples=100) == pytest.approx(tuple(ends.clip(min=0)))


def test_calibration_interval_covers_the_error() -> None:
    covered = []
    for seed in range(60):
        p, labels = _calibrated(seed, 1000)
        low, high = clicks.calibration_interval(p + 0.2, labels, samples=200)
        covered.append(low <= 0.2 <= high)
    assert np.mean(covered) > 0.85


def test_calibration_test_keeps_its_level_and_sees_a_difference() -> None:
    p_values = []
    for seed in range(80):
        p, labels = _calibrated(seed, 600)
        p_values.append(clicks.calibration_test(p + 0.1, p - 0.1, labels, samples=100))
    assert np.mean(np.array(p_values) < 0.05) < 0.12
    p, labels = _calibrated(0, 2000)
    assert clicks.calibration_test(p, p + 0.2, labels) == pytest.approx(2 / 1001)
    assert clicks.calibration_test(p, p, labels) == 1


def test_interval_holds_the_auc_and_narrows() -> None:
    widths = []
    for count in (100, 2500):
        p, labels = _events(0, count, ties=True)
        low, high = clicks.auc_interval(p, labels, samples=200)
        assert low < clicks.auc(p, labels) < high
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 8  # a fifth, by the square root of 25


def test_interval_is_that_of_resampled_aucs() -> None:
    p, labels = _events(1, 40, ties=True)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        drawn = rng.integers(len(p), size=len(p))
        found.append(roc_auc_score(labels[drawn], p[drawn]))
    assert clicks.auc_interval(p, labels, samples=100) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])))


def test_delong_keeps_its_level_and_sees_a_difference() -> None:
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(300):
        labels = rng.integers(2, size=200)
        p_values.append(clicks.delong_test(*(labels + 2 * rng.normal(size=(2, 200))), labels))
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09
    labels = rng.integers(2, size=400)
    good, bad = labels + rng.normal(size=400), labels + 5 * rng.normal(size=400)
    assert clicks.delong_test(good, bad, labels) < 1e-4
    assert clicks.delong_test(good, good, labels) == 1
    assert clicks.delong_test(good, np.exp(good), labels) == 1


def test_delong_is_the_formula() -> None:
    """The covariances of the structural components by loops over pairs (DeLong et al. 1988, equations 4 to 6)."""
    rng = np.random.default_rng(3)
    labels = np.repeat([1, 0], [12, 17])
    models = (labels + rng.normal(size=29)).round(1), (labels + 2 * rng.normal(size=29)).round(1)
    v10, v01 = np.zeros((2, 12)), np.zeros((2, 17))
    for model, scores in enumerate(models):
        for i, x in enumerate(scores[:12]):
            for j, y in enumerate(scores[12:]):
                psi = 1.0 if x > y else 0.5 if x == y else 0.0
                v10[model, i] += psi / 17
                v01[model, j] += psi / 12
    covariance = np.cov(v10) / 12 + np.cov(v01) / 17
    contrast = np.array([1, -1])
    z = contrast @ v10.mean(1) / np.sqrt(contrast @ covariance @ contrast)
    assert clicks.delong_test(*models, labels) == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_bad_input() -> None:
    two = np.array([0, 1])
    for figure, p, labels, message in [
        (clicks.auc, np.ones(2), np.ones(2), "all labels are alike"),
        (clicks.auc_interval, np.ones(2), np.zeros(2), "all labels are alike"),
        (clicks.auc, np.array([0.1, np.nan]), two, "event 1: a score is NaN"),
        (clicks.auc, np.ones(3), two, "3 events do not fit 2 labels"),
        (clicks.log_loss, np.ones(3), two, "3 events do not fit 2 labels"),
        (clicks.accuracy, np.array([0.5, 1.2]), two, "event 1: 1.2 is no probability"),
        (clicks.calibration_error, np.ones(0), np.ones(0), "no events"),
        (clicks.auc, np.ones(3), np.array([0, 1, 5]), "event 2: the label 5 is neither 0 nor 1"),
        (clicks.log_loss, np.ones(3), np.array([1, -1, 1]), "event 1: the label -1 is neither 0 nor 1"),
        (clicks.accuracy, np.ones(2), np.array([np.nan, 1]), "event 0: the label nan is neither 0 nor 1"),
    ]:
        with pytest.raises(LorarecError, match=message):
            figure(p, labels)
    with pytest.raises(LorarecError, match="two events of either label"):
        clicks.delong_test(np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.2, 0.1]), np.array([0, 1, 1]))
    with pytest.raises(LorarecError, match="a level between 0 and 1"):
        clicks.auc_interval(np.array([0.1, 0.2]), two, level=1)
    with pytest.raises(LorarecError, match="a level between 0 and 1"):
        clicks.calibration_interval(np.array([0.1, 0.2]), two, samples=0)
    with pytest.raises(LorarecError, match=r"event 1: 1.2 is no probability"):
        clicks.calibration_test(np.array([0.1, 0.2]), np.array([0.1, 1.2]), two)

"""Intervals and tests against scipy's, and their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lorarec.errors import LorarecError
from lorarec.metrics import bootstrap_interval, paired_t_test
from lorarec.metrics import significance as statistics
from lorarec.metrics.significance import resampled_p_value


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=200)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2)
    found = bootstrap_interval(values, samples=20_000)
    np.testing.assert_allclose(found, reference.confidence_interval, atol=0.006)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(3).normal(1.0, 2.0, size=(60, 400))
    low, high = bootstrap_interval(draws, level=0.9, samples=400)
    assert 0.82 < np.mean((low <= 1) & (high >= 1)) < 0.96


def test_columns_share_resamples_and_equal_single_calls() -> None:
    values = np.random.default_rng(4).random((30, 3))
    low, high = bootstrap_interval(values, seed=5)
    assert low.shape == high.shape == (3,)
    for column in range(3):
        np.testing.assert_allclose(bootstrap_interval(values[:, column], seed=5), (low[column], high[column]))


def test_seed_decides_and_batches_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).random(40)
    once = bootstrap_interval(values, seed=1)
    assert once != bootstrap_interval(values, seed=2)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 100)
    np.testing.assert_allclose(bootstrap_interval(values, seed=1), once)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_interval_stays_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_interval(np.array(values), samples=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_interval_refuses_bad_input() -> None:
    with pytest.raises(LorarecError, match="no cases"):
        bootstrap_interval(np.array([]))
    for options in ({"level": 1.0}, {"level": 0.0}, {"samples": 0}):
        with pytest.raises(LorarecError, match="a level between 0 and 1"):
            bootstrap_interval(np.ones(3), **options)


def test_p_equals_the_formula_and_is_symmetric() -> None:
    rng = np.random.default_rng(7)
    a = rng.random(25)
    b = a + rng.normal(0.05, 0.1, 25)
    difference = a - b
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(25))
    assert paired_t_test(a, b) == pytest.approx(2 * stats.t.sf(abs(t), 24))
    assert paired_t_test(a, b) == pytest.approx(paired_t_test(b, a))


def test_p_where_the_formula_divides_by_zero() -> None:
    values = np.array([0.0, 1.0, 0.5])
    assert paired_t_test(values, values) == 1.0
    assert paired_t_test(values + 1, values) == 0.0
    assert paired_t_test(np.array([1.0]), np.array([0.0])) == 1.0
    with pytest.raises(LorarecError, match="values of the same cases"):
        paired_t_test(np.ones(3), np.ones(2))


def test_p_of_resampled_differences() -> None:
    """Twice the rarer side of zero, the sample itself included; never below what so many resamples can tell."""
    assert resampled_p_value(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert resampled_p_value(-np.ones(999)) == pytest.approx(2 / 1000)
    assert resampled_p_value(np.zeros(10)) == 1.0
    with pytest.raises(LorarecError, match="no resamples"):
        resampled_p_value(np.array([]))

"""Intervals and tests against scipy's, and their coverage."""

from collections.abc import Callable
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lorarec.errors import LorarecError
from lorarec.metrics import Correction, adjust_p_values, bootstrap_interval, paired_t_test
from lorarec.metrics import significance as statistics
from lorarec.metrics.significance import resampled_means, resampled_p_value


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


def test_rounding_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.choice(1 / np.log2(np.arange(2, 12)), (3, 400))
    one, other = seeds.mean(0), seeds[::-1].mean(0)  # the same numbers, added up in another order
    assert (one != other).any()
    assert paired_t_test(one, other) == 1
    assert paired_t_test(1e6 * one, 1e6 * other) == 1
    assert paired_t_test(one, one + 0.1) == 0  # constant up to rounding
    mixed = one + np.where(np.arange(400) < 200, 0.1, 0.0)
    assert paired_t_test(other, mixed) == pytest.approx(stats.ttest_rel(one, mixed).pvalue)


def test_rounding_of_resampled_means_is_no_difference() -> None:
    """Both models have one value in all cases, so that no resample tells them apart."""
    first, second = np.repeat([1.0, 0.0], [10, 3]), np.repeat([0.0, 1.0], [10, 3])
    value = 1 / np.log2(3)
    sums = resampled_means(np.stack([first, second, value * first, value * second], axis=1))
    sums = sums[(sums[:, :2] > 0).all(1)]
    differences = sums[:, 2] / sums[:, 0] - sums[:, 3] / sums[:, 1]
    assert differences.any()
    assert resampled_p_value(differences) == 1


def test_p_of_resampled_differences() -> None:
    """Twice the rarer side of zero, the sample itself included; never below what so many resamples can tell."""
    assert resampled_p_value(np.array([1.0] * 97 + [-1.0] * 2)) == pytest.approx(2 * 3 / 100)
    assert resampled_p_value(-np.ones(999)) == pytest.approx(2 / 1000)
    assert resampled_p_value(np.zeros(10)) == 1.0
    with pytest.raises(LorarecError, match="no resamples"):
        resampled_p_value(np.array([]))


def _rejected_by_holm(p_values: list[Fraction], level: Fraction) -> list[bool]:
    """Holm 1979: reject the smallest p-values one by one until the first that is above level / tests left."""
    rejected = [False] * len(p_values)
    for place in sorted(range(len(p_values)), key=lambda place: p_values[place]):
        if p_values[place] > level / rejected.count(False):
            break
        rejected[place] = True
    return rejected


def _rejected_by_benjamini_hochberg(p_values: list[Fraction], level: Fraction) -> list[bool]:
    """Benjamini and Hochberg 1995: reject the k smallest, k the largest with p(k) <= k / tests * level."""
    tests = len(p_values)
    smallest = sorted(p_values)
    k = max((k for k in range(1, tests + 1) if smallest[k - 1] <= Fraction(k, tests) * level), default=0)
    return [k > 0 and each <= smallest[k - 1] for each in p_values]


@pytest.mark.parametrize(
    ("correction", "rejected"),
    [("holm", _rejected_by_holm), ("benjamini-hochberg", _rejected_by_benjamini_hochberg)],
)
@given(p_values=st.lists(st.integers(0, 1000), min_size=1, max_size=20), level=st.integers(1, 7918))
def test_corrected_p_values_reject_what_the_procedures_reject(
    correction: Correction, rejected: Callable[..., list[bool]], p_values: list[int], level: int
) -> None:
    # The denominators have no common factor, so that no corrected p-value equals the level.
    exact, exact_level = [Fraction(each, 1000) for each in p_values], Fraction(level, 7919)
    adjusted = adjust_p_values([float(each) for each in exact], correction)
    assert (adjusted < float(exact_level)).tolist() == rejected(exact, exact_level)
    assert ((adjusted >= np.array(p_values) / 1000) & (adjusted <= 1)).all()


def test_known_corrections() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(adjust_p_values(p_values), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(adjust_p_values(p_values, "benjamini-hochberg"), [0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("correction", get_args(Correction))
def test_one_test_needs_no_correction_and_no_test_has_none(correction: Correction) -> None:
    assert adjust_p_values([0.03], correction).tolist() == [0.03]
    assert adjust_p_values([], correction).tolist() == []


def test_corrections_refuse_bad_input() -> None:
    with pytest.raises(LorarecError, match="no correction 'bonferroni' of p-values: choose one of holm, benjamini-"):
        adjust_p_values([0.1], "bonferroni")  # type: ignore[arg-type]
    for p_value in (-0.1, 1.1, float("nan")):
        with pytest.raises(LorarecError, match="a p-value is not between 0 and 1"):
            adjust_p_values([0.1, p_value])

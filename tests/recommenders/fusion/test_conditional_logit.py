"""The conditional logit against scikit-learn, scipy and its first-order condition."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult, minimize
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression

from lorarec.errors import LorarecError
from lorarec.recommenders.fusion.conditional_logit import (
    FOLDS,
    PENALTIES,
    choose_penalty,
    fit_conditional_logit,
    log_posterior,
)


def _cases(seed: int, cases: int, features: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw features, sizes between 2 and 6, and targets that prefer high values of the first feature."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, cases)
    matrix = rng.normal(size=(int(sizes.sum()), features))
    noisy = matrix[:, 0] + rng.gumbel(size=len(matrix))
    targets = np.array([each.argmax() for each in np.split(noisy, np.cumsum(sizes)[:-1])])
    return matrix, sizes, targets


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=5), min_size=1, max_size=6))
def test_posterior_is_the_softmax_of_each_case(logits: list[list[float]]) -> None:
    sizes = np.array([len(each) for each in logits])
    expected = np.concatenate([log_softmax(each) for each in logits])
    np.testing.assert_allclose(log_posterior(np.concatenate(logits), sizes), expected, atol=1e-12)


def test_pairs_are_a_logistic_regression_of_differences() -> None:
    """With two candidates, the model is a logistic regression without an intercept on the difference of features."""
    rng = np.random.default_rng(0)
    matrix, cases = rng.normal(size=(400, 3)), 200
    first, second = matrix[0::2], matrix[1::2]
    targets = (rng.random(cases) < 1 / (1 + np.exp(-(second - first) @ [1.0, -0.5, 0.2]))).astype(int)
    penalty = 0.01
    reference = LogisticRegression(C=1 / (penalty * cases), fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(second - first, targets)
    weights = fit_conditional_logit(matrix, np.full(cases, 2), targets, penalty)
    np.testing.assert_allclose(weights, reference.coef_[0], atol=1e-5)


def test_gradient_is_zero_at_the_result() -> None:
    matrix, sizes, targets = _cases(1, 60)
    penalty, penalised = 0.1, np.array([1.0, 0.0, 1.0])
    weights = fit_conditional_logit(matrix, sizes, targets, penalty, penalised)
    gradient = penalty * penalised * weights
    begin = 0
    for size, target in zip(sizes, targets, strict=True):  # the loop over cases that the formula is
        features = matrix[begin : begin + size]
        shares = np.exp(log_softmax(features @ weights))
        gradient += (shares @ features - features[target]) / len(sizes)
        begin += size
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    matrix, sizes, targets = _cases(1, 20)
    matrix[7, 2] = value
    with pytest.raises(LorarecError, match=f"feature 2 of candidate 7 is {value}: give finite features"):
        fit_conditional_logit(matrix, sizes, targets, 0.1)


def test_a_fit_that_does_not_end_at_a_minimum_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, sizes, targets = _cases(1, 60)

    def stopped(*arguments: Any, options: dict[str, Any], **others: Any) -> OptimizeResult:
        return minimize(*arguments, options=options | {"maxiter": 1}, **others)

    monkeypatch.setattr("lorarec.recommenders.fusion.conditional_logit.minimize", stopped)
    with pytest.raises(LorarecError, match=r"penalty 0\.1 were not found in 1 steps: leave out .* larger penalty"):
        fit_conditional_logit(matrix, sizes, targets, 0.1)


def test_features_that_overflow_are_refused() -> None:
    matrix, sizes, targets = _cases(1, 60)
    with np.errstate(all="ignore"), pytest.raises(LorarecError, match="were not found"):
        fit_conditional_logit(matrix * [1, 1, 1e200], sizes, targets, 0.1)


def test_a_minimum_counts_whatever_the_optimiser_reports() -> None:
    """The likelihood of separable cases has no maximum without a penalty; the fit ends where the slope vanishes."""
    matrix = np.array([[1.0], [0.0], [1.0], [0.0]])
    weights = fit_conditional_logit(matrix, np.array([2, 2]), np.array([0, 0]), penalty=0.0)
    assert log_posterior(matrix @ weights, np.array([2, 2]))[0] > -1e-3


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(1e-4, 1e4), st.sampled_from(PENALTIES))
def test_ordinary_features_of_any_unit_are_fitted(seed: int, unit: float, penalty: float) -> None:
    matrix, sizes, targets = _cases(seed, 30)
    assert np.isfinite(fit_conditional_logit(matrix * unit, sizes, targets, penalty)).all()


def test_cross_validation_prefers_a_large_penalty_where_nothing_can_be_learned() -> None:
    rng = np.random.default_rng(0)
    sizes = np.full(80, 5)
    matrix = rng.normal(size=(400, 8))
    noise = choose_penalty(matrix, sizes, rng.integers(0, 5, 80), np.ones(8), seed=0)
    signal = matrix[:, 0].reshape(80, 5).argmax(1)
    assert noise > choose_penalty(matrix, sizes, signal, np.ones(8), seed=0)


@pytest.mark.parametrize("cases", [2, 3, 5, 6, 13])
def test_each_case_is_held_out_once(cases: int) -> None:
    matrix, sizes, targets = _cases(2, cases)
    folds, place = np.random.default_rng(0).permutation(cases) % FOLDS, np.cumsum(sizes) - sizes
    losses = []
    for penalty in PENALTIES:
        total = 0.0
        for case, (start, size) in enumerate(zip(place, sizes, strict=True)):
            kept = folds != folds[case]
            weights = fit_conditional_logit(matrix[np.repeat(kept, sizes)], sizes[kept], targets[kept], penalty)
            logits = matrix[start : start + size] @ weights
            total += logsumexp(logits) - logits[targets[case]]
        losses.append(total)
    assert choose_penalty(matrix, sizes, targets, np.ones(3), seed=0) == PENALTIES[int(np.argmin(losses))]


def test_a_single_case_has_the_largest_penalty() -> None:
    assert choose_penalty(*_cases(2, 1), np.ones(3), seed=0) == PENALTIES[-1]

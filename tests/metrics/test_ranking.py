"""Ranks and metrics against other ways of computing them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from lorarec.errors import LorarecError
from lorarec.metrics import hit_rate, ndcg, reciprocal_rank, target_ranks


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[list[np.ndarray], list[int]]:
    """Cases of 1 to 8 candidates with many equal scores, and a target in each."""
    scores = draw(st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=8), min_size=1, max_size=6))
    targets = [draw(st.integers(0, len(case) - 1)) for case in scores]
    return [np.array(case, dtype=float) for case in scores], targets


@given(scored_cases())
def test_rank_is_the_place_in_a_stable_sort(cases: tuple[list[np.ndarray], list[int]]) -> None:
    scores, targets = cases
    expected = [list(np.argsort(-case, kind="stable")).index(t) + 1 for case, t in zip(scores, targets, strict=True)]
    assert target_ranks(scores, np.array(targets)).tolist() == expected


@given(scored_cases(), st.floats(0.5, 4), st.integers(-3, 3))
def test_ranks_do_not_change_with_scale_and_shift(
    cases: tuple[list[np.ndarray], list[int]], scale: float, shift: int
) -> None:
    scores, targets = cases
    moved = [np.exp(scale * case) + shift for case in scores]
    assert target_ranks(moved, np.array(targets)).tolist() == target_ranks(scores, np.array(targets)).tolist()


def test_of_equal_scores_the_earlier_ranks_first() -> None:
    same = [np.zeros(4)] * 4
    assert target_ranks(same, np.arange(4)).tolist() == [1, 2, 3, 4]


def test_infinite_scores_rank_at_the_ends() -> None:
    scores = [np.array([-np.inf, 0.0, np.inf])] * 3
    assert target_ranks(scores, np.arange(3)).tolist() == [3, 2, 1]


def test_integer_scores_and_no_cases() -> None:
    assert target_ranks([np.array([1, 3]), np.array([2])], np.array([0, 0])).tolist() == [2, 1]
    assert target_ranks([], np.array([])).tolist() == []


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_ndcg_equals_that_of_sklearn(k: int) -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.random((50, 30)), rng.integers(30, size=50)
    relevance = np.eye(30)[targets]
    expected = [ndcg_score(relevance[[i]], scores[[i]], k=k) for i in range(50)]
    np.testing.assert_allclose(ndcg(target_ranks(list(scores), targets), k), expected, atol=1e-12)


@given(st.lists(st.integers(1, 30), min_size=1), st.integers(1, 12))
def test_figures_from_their_formulas(ranks: list[int], k: int) -> None:
    given_ranks = np.array(ranks)
    assert ndcg(given_ranks, k).tolist() == pytest.approx([1 / math.log2(r + 1) if r <= k else 0.0 for r in ranks])
    assert hit_rate(given_ranks, k).tolist() == [float(r <= k) for r in ranks]
    assert reciprocal_rank(given_ranks).tolist() == pytest.approx([1 / r for r in ranks])
    assert (ndcg(given_ranks, 1) == hit_rate(given_ranks, 1)).all()
    assert (ndcg(given_ranks, k) <= hit_rate(given_ranks, k)).all()


def test_bad_input_is_named() -> None:
    fine = [np.array([1.0, 2.0]), np.array([1.0, 2.0])]
    with pytest.raises(LorarecError, match="case 1: a score is NaN"):
        target_ranks([fine[0], np.array([1.0, np.nan])], np.array([0, 0]))
    with pytest.raises(LorarecError, match="scores of 2 cases do not fit 1 targets"):
        target_ranks(fine, np.array([0]))
    for outside in (2, -1):
        with pytest.raises(LorarecError, match=f"case 1: target {outside} is none of its 2 candidates"):
            target_ranks(fine, np.array([0, outside]))
    with pytest.raises(LorarecError, match="none of its 0 candidates"):
        target_ranks([np.array([])], np.array([0]))
    with pytest.raises(LorarecError, match="k must be at least 1, got 0"):
        ndcg(np.array([1]), 0)

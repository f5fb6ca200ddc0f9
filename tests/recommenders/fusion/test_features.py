"""Features of candidates: ranks against scipy, and columns for known and new items."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from lorarec.recommenders import CandidateScores, FusionFeatures
from lorarec.recommenders.fusion.features import mean_ranks


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=5))
def test_ranks_are_those_of_scipy(scores: list[list[int]]) -> None:
    sizes = np.array([len(each) for each in scores])
    expected = np.concatenate([rankdata(-np.array(each)) for each in scores])
    flat = np.concatenate(scores).astype(float)
    np.testing.assert_array_equal(mean_ranks(np.stack([flat, -flat], 1), sizes)[:, 0], expected)


def test_columns_of_known_and_new_items() -> None:
    scores = np.array([[3.0, 1.0], [1.0, 1.0], [2.0, 5.0], [0.0, 7.0]])
    cases = CandidateScores(scores, np.array([False, True, False, False]), np.array([2, 2]), np.array([0, 9]))
    features = FusionFeatures.fit(["a", "b"], cases)
    table = dict(zip(features.names, features.matrix(cases).T, strict=True))
    scaled = (scores - scores.mean(0)) / scores.std(0)
    np.testing.assert_allclose(table["a"], [scaled[0, 0], 0, scaled[2, 0], scaled[3, 0]])
    np.testing.assert_allclose(table["a, new item"], [0, scaled[1, 0], 0, 0])
    np.testing.assert_allclose(table["log rank by b"], -np.log([1.5, 1, 2, 1]))
    np.testing.assert_allclose(table["log rank by b, new item"], -np.log([1, 1.5, 1, 1]))
    length = np.log([1, 1, 10, 10]) - np.log([1, 10]).mean()
    np.testing.assert_allclose(table["b x log history length"], scaled[:, 1] * length * [1, 0, 1, 1])
    np.testing.assert_allclose(table["new item"], [0, 1, 0, 0])
    assert [features.names[column].split(",")[0] for column in np.flatnonzero(features.sources == 0)] == [
        "a",
        "log rank by a",
        "a x log history length",
        "a",
        "log rank by a",
    ]


def test_a_scorer_that_is_constant() -> None:
    cases = CandidateScores(np.ones((2, 1)), np.zeros(2, bool), np.array([2]), np.array([1]))
    assert np.isfinite(FusionFeatures.fit(["a"], cases).matrix(cases)).all()

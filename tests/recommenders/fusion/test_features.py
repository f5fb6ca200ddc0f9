"""Features of candidates: columns for known and for new items."""

import numpy as np

from lorarec.recommenders import CandidateScores, FusionFeatures


def test_columns_of_known_and_new_items() -> None:
    scores = np.array([[3.0, 1.0], [1.0, 1.0], [2.0, 5.0], [0.0, 7.0]])
    cases = CandidateScores(scores, np.array([False, True, False, False]), np.array([2, 2]), np.array([0, 9]))
    features = FusionFeatures.fit(["a", "b"], cases)
    table = dict(zip(features.names, features.matrix(cases).T, strict=True))
    scaled = (scores - scores.mean(0)) / scores.std(0)
    np.testing.assert_allclose(table["a"], [scaled[0, 0], 0, scaled[2, 0], scaled[3, 0]])
    np.testing.assert_allclose(table["a, new item"], [0, scaled[1, 0], 0, 0])
    length = np.log([1, 1, 10, 10]) - np.log([1, 10]).mean()
    np.testing.assert_allclose(table["b x log history length"], scaled[:, 1] * length * [1, 0, 1, 1])
    np.testing.assert_allclose(table["new item"], [0, 1, 0, 0])
    assert [features.names[column].split(",")[0] for column in np.flatnonzero(features.sources == 0)] == [
        "a",
        "a x log history length",
        "a",
    ]


def test_a_scorer_that_is_constant() -> None:
    cases = CandidateScores(np.ones((2, 1)), np.zeros(2, bool), np.array([2]), np.array([1]))
    assert np.isfinite(FusionFeatures.fit(["a"], cases).matrix(cases)).all()

"""Features of candidates: columns for known and for new items."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("score", [0.0, 0.3, -7.3, 1e6 + 0.1])
def test_a_scorer_that_is_constant(score: float) -> None:
    # The deviation of 1,000 equal numbers is not always 0, for rounding.
    cases = CandidateScores(np.full((1000, 2), score), np.zeros(1000, bool), np.array([1000]), np.array([1]))
    cases.scores[:, 1] *= 1 + np.tile([0, 2e-16], 500)
    features = FusionFeatures.fit(["a", "b"], cases)
    np.testing.assert_array_equal(features.deviations, [1, 1])
    np.testing.assert_allclose(features.matrix(cases), 0, atol=1e-12 * max(1, abs(score)))

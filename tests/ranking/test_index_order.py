"""The order of an index as a prior and as a scorer: one formula."""

import numpy as np

from lorarec.ranking.index_order import log_prior, with_index_order
from lorarec.recommenders import CandidateScores


def test_the_prior_is_one_over_the_place() -> None:
    np.testing.assert_allclose(np.exp(log_prior(5)), 1 / np.arange(1, 6))
    assert log_prior(0).shape == (0,)


def test_a_fusion_reads_the_prior_of_every_case() -> None:
    scores = np.arange(12.0).reshape(6, 2)
    cases = CandidateScores(scores, np.zeros(6, bool), np.array([1, 3, 2]), np.array([4, 0, 2]))
    found = with_index_order(cases)
    np.testing.assert_array_equal(found.scores[:, :2], scores)
    np.testing.assert_array_equal(found.scores[:, 2], np.concatenate([log_prior(1), log_prior(3), log_prior(2)]))
    np.testing.assert_array_equal(found.sizes, cases.sizes)

"""Every source finds the items that brute force finds, and the contributions of the history."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics.pairwise import cosine_similarity

from lorarec.retrieval.cooccurrence_source import CooccurrenceSource
from lorarec.retrieval.source import MAX_HISTORY, PopularSource, concatenate_ranges, latest_items
from lorarec.retrieval.title_source import TitleSource

HISTORY = np.array([4, 9, 4, 2])
NOTHING = np.zeros(30, bool)


@pytest.fixture
def chosen() -> csr_matrix:
    return csr_matrix((np.random.default_rng(1).random((50, 30)) < 0.15).astype(np.float32))


def _sorted(scores: np.ndarray, blocked: np.ndarray) -> list[int]:
    return [int(row) for row in np.argsort(-scores, kind="stable") if scores[row] > 0 and not blocked[row]]


def test_together_is_the_sum_of_cosines(chosen: csr_matrix) -> None:
    source, blocked = CooccurrenceSource(chosen), NOTHING.copy()
    blocked[[4, 9, 2, 17]] = True
    cosines = cosine_similarity(chosen.T.toarray())
    found = source.find(HISTORY, 30, blocked)
    expected = _sorted(cosines[[2, 4, 9]].sum(0), blocked)
    # Sums that differ by rounding alone may change places.
    assert sorted(found.tolist()) == sorted(expected)
    assert cosines[[2, 4, 9]].sum(0)[found] == pytest.approx(cosines[[2, 4, 9]].sum(0)[expected])
    scales = np.sqrt(chosen.sum(0).A1[found])
    assert source.similarities(HISTORY, found) / scales[:, None] == pytest.approx(cosines[found][:, HISTORY], abs=1e-6)


def test_few_users_of_popular_items_are_counted(chosen: csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.data.cooccurrence.MAX_USERS", 5)
    found = CooccurrenceSource(chosen).find(HISTORY, 30, NOTHING)
    assert 0 < len(found) <= 30


def test_titles_are_inner_products() -> None:
    random = np.random.default_rng(2)
    words = csr_matrix(random.random((30, 12)) * (random.random((30, 12)) < 0.3))
    rows = np.arange(0, 30, 2)
    scores = (words @ words.T).toarray()
    elsewhere = ~np.isin(np.arange(30), rows)
    found = TitleSource(words, rows).find(HISTORY, 30, elsewhere)
    assert found.tolist() == _sorted(scores[[2, 4, 9]].sum(0), elsewhere)
    assert TitleSource(words, rows).similarities(HISTORY, found) == pytest.approx(scores[found][:, HISTORY])


def test_popular_never_runs_dry() -> None:
    blocked = np.array([False, True, False, False])
    assert PopularSource(np.array([0, 9, 3, 3])).find(HISTORY, 10, blocked).tolist() == [2, 3, 0]
    assert PopularSource(np.array([0, 9, 3, 3])).find(HISTORY, 1, blocked).tolist() == [2]


def test_latest_items_items_once_latest_first() -> None:
    assert latest_items(HISTORY).tolist() == [2, 4, 9]
    assert len(latest_items(np.arange(50))) == MAX_HISTORY
    assert latest_items(np.empty(0, np.int64)).tolist() == []


def test_concatenate_ranges() -> None:
    assert concatenate_ranges(np.array([3, 5, 0]), np.array([5, 5, 2])).tolist() == [3, 4, 0, 1]

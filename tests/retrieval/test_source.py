"""Every source finds the items that brute force finds, and the contributions of the history."""

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics.pairwise import cosine_similarity

from lorarec.data import leave_one_out
from lorarec.recommenders import SequentialRules, TrainingData, encode_lists, known_items
from lorarec.retrieval.cooccurrence_source import CooccurrenceSource
from lorarec.retrieval.rules_source import RulesSource
from lorarec.retrieval.source import MAX_HISTORY, PopularSource, concatenate_ranges, latest_items
from lorarec.retrieval.title_source import TitleSource
from tests.factories import noun_dataset

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


def _rules(histories: list[list[int]], items: int = 30) -> RulesSource:
    lengths = np.array([len(history) for history in histories])
    return RulesSource.count(np.concatenate(histories).astype(np.int64), lengths, items)


def test_rules_are_discounted_by_distance_and_place() -> None:
    random = np.random.default_rng(3)
    histories = [random.permutation(30)[: 2 + user % 7].tolist() for user in range(40)]
    weight = np.zeros((30, 30))
    for history in histories:
        for place, before in enumerate(history):
            for distance, after in enumerate(history[place + 1 :], 1):
                weight[before, after] += 1 / distance
    weight /= np.sqrt((weight.sum(1, keepdims=True) + 10) * (weight.sum(0, keepdims=True) + 10))
    parts = weight[[2, 4, 9]] / np.array([[1], [2], [3]])  # HISTORY has the items 9, 4, 2, each counted once
    source, blocked = _rules(histories), NOTHING.copy()
    blocked[[4, 9, 2, 17]] = True
    found = source.find(HISTORY, 30, blocked)
    assert sorted(found.tolist()) == sorted(_sorted(parts.sum(0), blocked))
    assert parts.sum(0)[found] == pytest.approx(np.sort(parts.sum(0)[~blocked])[::-1][: len(found)])
    latest = latest_items(HISTORY, source.max_history)
    assert source.similarities(latest, found) == pytest.approx(parts[:, found].T, rel=1e-6)


def test_rules_score_as_the_recommender_does() -> None:
    dataset = noun_dataset()
    split = leave_one_out(dataset, new_items=0.2, negatives=9)
    items = dataset.items["item_id"]
    source = RulesSource.count(*encode_lists(split.train["history"], items), len(items))
    histories = known_items(split.test["warm"]["history"], {item: row for row, item in enumerate(items)})
    cases = split.test["warm"].with_columns(pl.Series("candidates", [items.to_list()] * len(histories)))
    for history, scores in zip(
        histories, SequentialRules().fit(TrainingData(dataset, split)).score(cases), strict=True
    ):
        assert len(set(history)) == len(history)
        found = source.find(history, 20, np.isin(np.arange(len(items)), history))
        scores[history] = 0
        assert len(found) == min(20, (scores > 0).sum())
        assert scores[found] == pytest.approx(np.sort(scores)[::-1][: len(found)], rel=1e-5)


def test_rules_need_the_order() -> None:
    assert _rules([[1, 2, 3]]).find(np.array([2]), 9, NOTHING).tolist() == [3]
    assert _rules([[1, 2, 3]]).find(np.array([3]), 9, NOTHING).tolist() == []
    assert _rules([[1], [2]]).find(np.array([1]), 9, NOTHING).tolist() == []


def test_the_strongest_rules_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [[1, 2, 9, 3, 4], [1, 2, 3], [7, 8]]
    every = _rules(histories).rules.toarray()
    monkeypatch.setattr("lorarec.retrieval.rules_source.MAX_RULES", 2)
    few = _rules(histories).rules.toarray()
    assert ((few > 0).sum(1) == np.minimum((every > 0).sum(1), 2)).all()
    assert np.flatnonzero(few[1]).tolist() == [2, 3]
    assert (few[few > 0] == every[few > 0]).all()


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

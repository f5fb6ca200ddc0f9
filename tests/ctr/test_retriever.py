import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.ctr import Retriever, retriever
from lorarec.errors import LorarecError

ITEMS, USERS = 7, 3
events = st.tuples(st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 12))
logs = st.lists(events, max_size=60)
queries = st.lists(st.tuples(st.integers(0, USERS), st.integers(0, ITEMS - 1), st.integers(-1, 14)), max_size=40)
#: Vectors of length 2 whose cosines are exact and often equal.
SIGNS = np.random.default_rng(1).choice([-1.0, 1.0], (ITEMS, 4))


def columns(rows) -> list[np.ndarray]:
    return list(np.array(rows, dtype=np.int64).reshape(-1, 3).T)


def by_definition(log, vectors, user, item, time, k) -> list[int]:
    """Reference: sort all earlier events of the user by cosine, then by time; return the first k in time order."""

    def cosine(row) -> float:
        a, b = vectors[log[row][1]], vectors[item]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    past = sorted((row for row in range(len(log)) if log[row][0] == user and log[row][2] < time), key=by_time(log))
    best = sorted(past, key=lambda row: (-cosine(row), -past.index(row)))[:k]
    return sorted(best, key=by_time(log))


def by_time(log):
    return lambda row: (log[row][2], row)


def filled(rows, k) -> list[int]:
    return rows + [-1] * (k - len(rows))


@given(logs, queries, st.integers(1, 6), st.sampled_from([1, 200, 1 << 24]))
def test_similar_behaviours_are_those_of_the_definition(log, requests, k, budget):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retriever, "TILE", 3)
        patch.setattr(retriever, "BUDGET", budget)
        found = Retriever(*columns(log), SIGNS).similar(*columns(requests), k)
    assert found.tolist() == [filled(by_definition(log, SIGNS, *query, k), k) for query in requests]


@given(logs, st.integers(0, USERS - 1), st.integers(0, ITEMS - 1), st.integers(0, 12), st.integers(1, 6), st.data())
def test_nothing_at_or_after_the_target_is_retrieved(log, user, item, time, k, data):
    """Events at or after the target's time, of any user, do not change the result."""
    past = [row for row in log if row[2] < time]
    future = data.draw(st.lists(st.tuples(st.integers(0, USERS), st.integers(0, ITEMS - 1), st.integers(time, 20))))
    other = data.draw(st.permutations(future)) + past
    query = columns([(user, item, time)])
    for rows in (log, other):
        found = [row for row in Retriever(*columns(rows), SIGNS).similar(*query, k)[0] if row >= 0]
        assert all(rows[row][0] == user and rows[row][2] < time for row in found)
        assert [rows[row] for row in found] == [past[row] for row in by_definition(past, SIGNS, user, item, time, k)]


def test_real_vectors_of_any_length():
    rng = np.random.default_rng(0)
    log = list(zip(*(rng.integers(0, high, 400) for high in (4, 50, 1000)), strict=True))
    vectors = rng.normal(size=(50, 8)) * rng.uniform(0.1, 9, (50, 1))
    found = Retriever(*columns(log), vectors).similar(*columns(log), 10)
    assert found.tolist() == [filled(by_definition(log, vectors, *row, 10), 10) for row in log]


@pytest.mark.parametrize("size", [30, 52, 55, 77])
def test_of_equal_vectors_the_later_are_taken_whatever_the_rounding(size):
    """Vectors are no multiples of one another, and items 0, 3 and 6 have the same one."""
    rng = np.random.default_rng(size)
    vectors = rng.normal(size=(ITEMS, size)).astype(np.float32)
    vectors[[0, 3]] = vectors[6]
    log = list(zip(*(rng.integers(0, high, 400) for high in (USERS, ITEMS, 40)), strict=True))
    searched = Retriever(*columns(log), vectors)
    found = searched.similar(*columns(log), 9)
    cosines = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.round(cosines @ cosines.T, 4)
    for place, (user, item, time) in enumerate(log):
        past = sorted((row for row in range(len(log)) if log[row][0] == user and log[row][2] < time), key=by_time(log))
        nearest = sorted(past, key=lambda row: (-cosines[log[row][1], item], -past.index(row)))[:9]
        assert found[place].tolist() == filled(sorted(nearest, key=by_time(log)), 9)
        if place % 20 == 0:
            alone = searched.similar(*columns([(user, item, time)]), 9)[0]
            assert alone.tolist() == found[place].tolist()


def test_items_without_direction_are_neither_near_nor_far():
    vectors = np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    log = columns([(0, 2, 0), (0, 1, 1), (0, 0, 2)])
    found = Retriever(*log, vectors)
    ask = [columns([(0, item, 9)]) for item in (0, 2)]
    assert [found.similar(*query, 2).tolist() for query in ask] == [[[1, 2]], [[0, 1]]]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda one: Retriever(one, one, one, np.full((3, 2), np.nan)), "must be finite numbers"),
        (lambda one: Retriever(one, one, one, np.full((3, 2), 1e39)), "must be finite numbers"),
        (lambda one: Retriever(one, one, one, np.ones(3)), r"of shape \(items, size\)"),
        (lambda one: Retriever(one, one + 5, one, np.ones((3, 2))), "item 5 has no embedding: there are 3"),
        (lambda one: Retriever(one, one, one[:0], np.ones((3, 2))), "1 users, 1 items and 0 timestamps"),
        (lambda one: Retriever(one, one, one, np.ones((3, 2))).similar(one, one - 1, one, 2), "item -1 has no"),
        (lambda one: Retriever(one, one, one, np.ones((3, 2))).similar(one, one, one, 0), "at least 1, got 0"),
        (lambda one: Retriever(one, one, one, np.ones((3, 2))).similar(one, one, one[:0], 1), "and 0 timestamps"),
    ],
)
def test_bad_input(action, message):
    with pytest.raises(LorarecError, match=message):
        action(np.zeros(1, np.int64))

"""The nearest vectors are those of brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.retrieval import nearest
from lorarec.retrieval.nearest import NearestVectors, best, cells


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 40))
def test_best_is_a_stable_sort(scores: list[int], count: int) -> None:
    values = np.array(scores, np.float32)
    assert best(values, count).tolist() == np.argsort(-values, kind="stable")[:count].tolist()


def _brute_force(vectors: np.ndarray, query: np.ndarray, count: int, blocked: np.ndarray) -> list[int]:
    ranked = np.argsort(-(vectors @ query), kind="stable")
    return [int(row) for row in ranked if not blocked[row]][:count]


def _drawn(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(rows, 16)).astype(np.float32)
    return vectors, random.normal(size=16).astype(np.float32), random.random(rows) < 0.3


@pytest.mark.parametrize("count", [1, 10, 500])
def test_exact_search(count: int) -> None:
    vectors, query, blocked = _drawn(300)
    assert NearestVectors(vectors).search(query, count, blocked).tolist() == _brute_force(
        vectors, query, count, blocked
    )


class TestInvertedFile:
    """faiss, which is used here for few vectors already."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("faiss")
        monkeypatch.setattr(nearest, "EXACT_UP_TO", 200)

    def test_all_cells_give_the_exact_answer(self) -> None:
        vectors, query, blocked = _drawn(2000)
        centres = cells(vectors)
        assert centres is not None
        assert centres.shape == (44, 16)
        found = NearestVectors(vectors, centres, probes=44).search(query, 50, blocked)
        assert found.tolist() == _brute_force(vectors, query, 50, blocked)

    def test_some_cells_find_most_and_nothing_blocked(self) -> None:
        vectors, query, blocked = _drawn(2000)
        found = NearestVectors(vectors, cells(vectors), probes=22).search(query, 50, blocked)
        assert len(set(found.tolist()) & set(_brute_force(vectors, query, 50, blocked))) >= 40
        assert not blocked[found].any()

    def test_a_short_allow_list_is_searched_exactly(self) -> None:
        vectors, query, _ = _drawn(2000)
        blocked = np.ones(2000, bool)
        blocked[::100] = False
        found = NearestVectors(vectors, cells(vectors), probes=1).search(query, 50, blocked)
        assert found.tolist() == _brute_force(vectors, query, 50, blocked)

    def test_without_faiss_the_search_is_exact(self, monkeypatch: pytest.MonkeyPatch) -> None:
        vectors, query, blocked = _drawn(2000)
        centres = cells(vectors)
        monkeypatch.setattr(nearest, "_faiss", lambda: None)
        assert cells(vectors) is None
        found = NearestVectors(vectors, centres, probes=1).search(query, 50, blocked)
        assert found.tolist() == _brute_force(vectors, query, 50, blocked)

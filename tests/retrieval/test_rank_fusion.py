"""Fusion by the formula; interleaving: quotas, no duplicates, the fallback last."""

from hypothesis import given
from hypothesis import strategies as st

from lorarec.retrieval.rank_fusion import fuse, interleave

RANKING = st.lists(st.integers(0, 30), unique=True)


def test_each_gives_its_share_in_every_round() -> None:
    found = interleave({"a": [1, 2, 3, 4, 5], "b": [1, 9], "rest": [7, 8]}, {"a": 2, "b": 1}, 8, "rest")
    assert found == {1: "a", 2: "a", 9: "b", 3: "a", 4: "a", 5: "a", 7: "rest", 8: "rest"}
    assert list(found) == [1, 2, 9, 3, 4, 5, 7, 8]


@given(RANKING, RANKING, RANKING, st.integers(0, 40))
def test_as_many_as_there_are(a: list[int], b: list[int], rest: list[int], count: int) -> None:
    rankings = {"a": a, "b": b, "rest": rest}
    found = interleave(rankings, {"a": 3, "b": 1}, count, "rest")
    assert len(found) == min(count, len({*a, *b, *rest}))
    assert all(row in rankings[name] for row, name in found.items())


@given(RANKING, RANKING, st.sampled_from([1, 2, 0.5]))
def test_fused_by_the_weighted_sum_of_reciprocal_places(a: list[int], b: list[int], weight: float) -> None:
    found = fuse({"a": a, "b": b}, {"b": weight})

    def total(row: int) -> float:
        return sum(of / (61 + rows.index(row)) for rows, of in ((a, 1), (b, weight)) if row in rows)

    assert set(found) == {*a, *b}
    assert list(map(total, found)) == sorted(map(total, found), reverse=True)
    for row, name in found.items():
        places = {other: rows.index(row) for other, rows in {"a": a, "b": b}.items() if row in rows}
        assert places[name] == min(places.values())


def test_rows_in_two_rankings_are_first() -> None:
    assert list(fuse({"a": [1, 2, 3], "b": [4, 2, 5]}, {})) == [2, 1, 4, 3, 5]

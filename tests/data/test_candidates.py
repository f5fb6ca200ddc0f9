"""Candidate sets: distinct items that the user never interacted with, uniform, in random order."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data.candidates import draw_candidates
from lorarec.errors import LorarecError


def _draw(touched: list[tuple[int, int]], items: int, negatives: int, seed: int = 0) -> pl.DataFrame:
    pairs = sorted(set(touched))
    interactions = pl.DataFrame(
        {"user_id": [f"u{user}" for user, _ in pairs], "item_id": [f"i{item}" for _, item in pairs]},
        schema={"user_id": pl.String, "item_id": pl.String},
    )
    cases = interactions.rename({"item_id": "target"})
    catalogue = pl.Series([f"i{item}" for item in range(items)])
    return draw_candidates(cases, interactions, catalogue, negatives, np.random.default_rng(seed))


@settings(max_examples=60)
@given(
    items=st.integers(31, 200),
    touched=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=60),
    negatives=st.integers(1, 29),
    seed=st.integers(0, 5),
)
def test_every_set_is_the_target_among_distinct_untouched_items(
    items: int, touched: list[tuple[int, int]], negatives: int, seed: int
) -> None:
    by_user: dict[str, set[str]] = {}
    for user, item in touched:
        by_user.setdefault(f"u{user}", set()).add(f"i{item}")
    enough = [user for user, own in by_user.items() if items - len(own) >= negatives]
    if not enough:
        return
    drawn = _draw(touched, items, negatives, seed)
    assert set(drawn["user_id"]) == set(enough)
    for user, target, candidates in drawn.select("user_id", "target", "candidates").iter_rows():
        assert len(set(candidates)) == len(candidates) == negatives + 1
        assert set(candidates) & by_user[user] == {target}
    assert drawn.equals(_draw(touched, items, negatives, seed))


@pytest.mark.parametrize("items", [40, 400], ids=["exact", "rejection"])
def test_items_and_places_are_uniform(items: int) -> None:
    drawn = _draw([(user, user % 10) for user in range(4000)], items, 20)
    counts = drawn.explode("candidates")["candidates"].value_counts()["count"].to_numpy()
    expected = 4000 * 20 / (items - 1)
    untouched = np.sort(counts)[: items - 10]
    assert abs(untouched.mean() / expected - 1) < 0.05
    assert abs(untouched.std() / np.sqrt(expected * (1 - 20 / (items - 1))) - 1) < 0.35
    place = [candidates.index(target) for candidates, target in drawn.select("candidates", "target").iter_rows()]
    assert abs(np.bincount(place, minlength=21) - 4000 / 21).max() < 5 * np.sqrt(4000 / 21)


def test_fewer_items_than_candidates_names_the_option() -> None:
    with pytest.raises(LorarecError, match=r"30 candidates need as many items, but only 20 can be.*option negatives"):
        _draw([(0, 0)], items=20, negatives=29)


def test_without_a_second_item_more_items_are_the_only_advice() -> None:
    with pytest.raises(LorarecError, match=r"only 1 can be drawn: use more items$"):
        _draw([(0, 0)], items=1, negatives=29)


def test_users_who_interacted_with_nearly_everything_are_left_out() -> None:
    drawn = _draw([(0, item) for item in range(30)] + [(1, 0)], items=40, negatives=20)
    assert drawn["user_id"].to_list() == ["u1"]
    nobody = _draw([(0, item) for item in range(30)], items=40, negatives=20)
    assert nobody.is_empty()
    assert nobody.schema == drawn.schema

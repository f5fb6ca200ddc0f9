"""k-core and overlap removal."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Dataset, k_core, remove_overlap
from lorarec.data.filters import core_rows
from lorarec.errors import LorarecError
from tests.factories import dataset_of

PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60, unique=True)


def _frame(pairs: list[tuple[int, int]]) -> pl.DataFrame:
    return pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row").cast(pl.String)


@settings(max_examples=100)
@given(pairs=PAIRS, user_k=st.integers(1, 4), item_k=st.integers(1, 4))
def test_core_is_a_fixpoint_whose_degrees_suffice_and_the_largest_such(
    pairs: list[tuple[int, int]], user_k: int, item_k: int
) -> None:
    frame = _frame(pairs)
    keep, rounds = core_rows(frame, user_k, item_k)
    core = frame.filter(keep)
    if core.height:
        assert (core["user_id"].value_counts()["count"] >= user_k).all()
        assert (core["item_id"].value_counts()["count"] >= item_k).all()
        assert core_rows(core, user_k, item_k)[0].all()
        assert core_rows(core, user_k, item_k)[1] == []
    for what, column in {"users": "user_id", "items": "item_id"}.items():
        assert sum(each[what] for each in rounds) == frame[column].n_unique() - core[column].n_unique()
    assert sum(each["interactions"] for each in rounds) == frame.height - core.height
    left = set(pairs)  # peel one row at a time, in another order than the vectorised rounds
    while bad := [
        (user, item)
        for user, item in left
        if sum(user == other for other, _ in left) < user_k or sum(item == other for _, other in left) < item_k
    ]:
        left.discard(bad[0])
    assert set(core.cast(pl.Int64).iter_rows()) == left


def test_k_core_drops_items_and_records_itself() -> None:
    square = [(user, item, 0) for user in "abc" for item in "xyz"]
    core = k_core(dataset_of([*square, ("d", "x", 0), ("a", "w", 1)]), 3)
    assert core.info["counts"] == {"users": 3, "items": 3, "interactions": 9}
    assert core.info["filters"] == ["3-core"]
    assert core.info["core_rounds"] == [{"users": 1, "items": 1, "interactions": 2}]
    with pytest.raises(LorarecError, match=r"left of a 4-core.*round 1 of 1 dropped 3 users, 3 items, 9 inter"):
        k_core(core, 4)


def test_users_and_items_may_have_limits_of_their_own() -> None:
    core = k_core(dataset_of([("a", "x", 0), ("a", "y", 1), ("b", "x", 0)]), 2, item_k=1)
    assert core.interactions["user_id"].to_list() == ["a", "a"]
    assert core.info["filters"] == ["core: users 2, items 1"]


@pytest.mark.parametrize(
    ("by", "left"),
    [
        ("users", [("b", "x"), ("b", "z")]),
        ("items", [("a", "w"), ("b", "z")]),
        ("interactions", [("a", "w"), ("b", "x"), ("b", "z")]),
        ("titles", [("a", "x"), ("b", "x"), ("b", "z")]),
    ],
)
def test_overlap(by: str, left: list[tuple[str, str]]) -> None:
    titles = {"w": "The Thing", "x": "Other", "z": "Zed"}
    one = dataset_of([("a", "w", 0), ("a", "x", 1), ("b", "x", 0), ("b", "z", 1)], titles, "one")
    other = dataset_of([("a", "x", 9), ("c", "v", 0)], {"v": "the thing", "x": "Third"}, "other")
    result = remove_overlap(one, other, by)
    assert list(result.interactions.select("user_id", "item_id").iter_rows()) == left
    assert set(result.items["item_id"]) == {item for _, item in left}
    assert result.info["filters"] == [f"without the {by} of other ({other.fingerprint})"]


@pytest.mark.parametrize(
    ("by", "left"),
    [("users", "uvz"), ("items", "uz"), ("interactions", "uvz"), ("titles", "vz")],
)
def test_items_without_interactions_stay_unless_the_other_dataset_has_them(by: str, left: str) -> None:
    one = dataset_of([("a", "z", 0)], {"u": "New Lamp", "v": "Old Lamp", "z": "Zed"}, "one")
    other = dataset_of([("c", "y", 0)], {"v": "Vase", "w": "new lamp", "y": "Y"}, "other")
    assert "".join(remove_overlap(one, other, by).items["item_id"]) == left


def test_overlap_by_something_unknown_or_total(dataset: Dataset) -> None:
    with pytest.raises(LorarecError, match="cannot remove overlap by 'brand'"):
        remove_overlap(dataset, dataset, "brand")
    with pytest.raises(LorarecError, match="nothing is left without the users of toy"):
        remove_overlap(dataset, dataset, "users")

"""Appended interactions and items: equal to an import of everything at once, or refused."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lorarec.data import Dataset
from lorarec.errors import LorarecError

START = 1_700_000_000
EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("wxyz"), st.integers(0, 4)), min_size=1, max_size=12
)


def log_of(rows: list[tuple[str, str, int]], start: int = START) -> pl.DataFrame:
    """Return a log of (user, item, time after the start)."""
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return frame.with_columns(pl.col("timestamp") + start)


def items_of(ids: str, **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"item_id": list(ids), "title": [f"Thing {item}" for item in ids], **columns})


@settings(max_examples=60)
@given(old=EVENTS, new=EVENTS)
def test_the_result_is_that_of_an_import_of_both_logs(old: list[Any], new: list[Any]) -> None:
    items = items_of("wxyz", colour=["red", None, "blue", "red"])
    shop = Dataset.from_polars(log_of(old), items)
    if set(new) <= set(old):
        with pytest.raises(LorarecError, match="nothing new"):
            shop.append(log_of(new), items)
        return
    grown = shop.append(log_of(new), items)
    both = Dataset.from_polars(log_of([*old, *new]), items)
    assert grown.fingerprint == both.fingerprint
    assert_frame_equal(grown.interactions, both.interactions)
    assert grown.info["counts"] == both.info["counts"]


def test_what_was_added_and_dropped_is_recorded() -> None:
    shop = Dataset.from_polars(log_of([("a", "w", 5), ("b", "x", 9)]), items_of("wx"), name="shop")
    new = log_of([("a", "w", 5), ("a", "y", 2), ("c", "z", 11), ("c", "w", 12), ("c", "w", 12)])
    titles = pl.DataFrame({"item_id": ["w", "y", "z"], "title": ["Other name", "Desk", None]})
    grown = shop.append(new, titles)
    assert grown.history("a") == ["y", "w"]
    assert (grown.titles["w"], grown.titles["y"]) == ("Thing w", "Desk")
    (record,) = grown.info["updates"]
    assert record == {
        "previous": shop.fingerprint,
        "previous_until": START + 9,
        "source": "polars data frame",
        "added": {"users": 1, "items": 1, "interactions": 2},
        "rows_read": 5,
        "duplicate_rows_dropped": 2,
        "late_interactions": 1,
        "items_with_several_titles": 0,
        "known_items_with_other_titles": 1,
        "untitled_items": 1,
        "untitled_items_named_by_id": False,
        "untitled_rows_dropped": 1,
    }
    assert grown.info["filters"] == ["appended 2 interactions of polars data frame"]
    assert grown.info["import"] == shop.info["import"]
    again = grown.append(log_of([("d", "w", 20)]))
    assert [each["previous"] for each in again.info["updates"]] == [shop.fingerprint, grown.fingerprint]


def test_the_same_log_twice_is_named() -> None:
    shop = Dataset.from_polars(log_of([("a", "w", 5)]), items_of("w"), name="shop")
    with pytest.raises(
        LorarecError, match="polars data frame has nothing new: its interactions \\(1\\) are in shop already"
    ):
        shop.append(log_of([("a", "w", 5)]))
    assert shop.append(log_of([("a", "w", 5)]), items_of("wx"), keep_unseen=True).items["item_id"].to_list() == [
        "w",
        "x",
    ]


def test_untitled_new_items_can_be_named_by_id_and_unseen_ones_of_before_stay() -> None:
    shop = Dataset.from_polars(log_of([("a", "w", 5)]), items_of("wx"), keep_unseen=True)
    new = log_of([("a", "v", 6)])
    with pytest.raises(LorarecError, match="nothing new"):
        shop.append(new)
    assert shop.append(new, keep_untitled=True).titles == {"v": "v", "w": "Thing w", "x": "Thing x"}


def test_keeping_unseen_items_needs_a_table_of_items() -> None:
    log = log_of([("a", "w", 5)]).with_columns(title=pl.lit("Thing w"))
    with pytest.raises(LorarecError, match="option keep_unseen needs option items"):
        Dataset.from_polars(log, keep_unseen=True)
    with pytest.raises(LorarecError, match="option keep_unseen needs option items"):
        Dataset.from_polars(log).append(log_of([("b", "w", 6)]), keep_unseen=True)


def test_titles_in_the_log_and_names_of_columns() -> None:
    shop = Dataset.from_polars(log_of([("a", "w", 5)]), items_of("w"))
    log = pl.DataFrame({"who": ["a"], "what": ["v"], "at": ["2024-05-01 10:00"], "name": ["Vase"]})
    grown = shop.append(log, user="who", item="what", time="at", title="name")
    assert (grown.titles["v"], grown.history("a")) == ("Vase", ["w", "v"])


def test_every_kind_of_frame_gives_the_same() -> None:
    pandas, pyarrow, datasets = (pytest.importorskip(name) for name in ("pandas", "pyarrow", "datasets"))
    shop = Dataset.from_polars(log_of([("a", "w", 5)]), items_of("w"))
    log, items = log_of([("a", "x", 6), ("b", "w", 7)]), items_of("x")
    kinds = (
        (log, items),
        (log.lazy(), items.lazy()),
        tuple(pandas.DataFrame(each.to_dict(as_series=False)) for each in (log, items)),
        tuple(pyarrow.table(each.to_dict(as_series=False)) for each in (log, items)),
        tuple(datasets.Dataset.from_dict(each.to_dict(as_series=False)) for each in (log, items)),
    )
    assert len({shop.append(*frames).fingerprint for frames in kinds}) == 1
    with pytest.raises(LorarecError, match="log is a list"):
        shop.append([1, 2])


def test_columns_of_items_are_filled_up_and_keep_their_types() -> None:
    log = log_of([("a", "w", 5)])
    shop = Dataset.from_frames("shop", log, items_of("w", price=[3.5], brand=["B"]))
    grown = shop.append(log_of([("a", "x", 6)]), items_of("x", price=["4.25"], size=["L"]))
    assert grown.items.to_dict(as_series=False) == {
        "item_id": ["w", "x"],
        "title": ["Thing w", "Thing x"],
        "price": [3.5, 4.25],
        "brand": ["B", None],
        "size": [None, "L"],
    }
    with pytest.raises(LorarecError, match="column 'price' of shop has type Float64"):
        shop.append(log_of([("a", "x", 6)]), items_of("x", price=["cheap"]))


def test_times_and_positions_are_not_mixed() -> None:
    by_time = Dataset.from_polars(log_of([("a", "w", 5)]), items_of("w"), name="by-time")
    by_place = Dataset.from_polars(log_of([("a", "w", 5)], start=0), items_of("w"), name="by-place")
    message = "has positions and by-time has times, which cannot be ordered together"
    with pytest.raises(LorarecError, match=message):
        by_time.append(log_of([("a", "w", 6)], start=0))
    with pytest.raises(LorarecError, match=message):
        by_time.append(log_of([("a", "w", 6)]), order="file")
    with pytest.raises(LorarecError, match="has times and by-place has positions"):
        by_place.append(log_of([("a", "w", 6)]))


def test_positions_go_on_and_never_begin_again() -> None:
    shop = Dataset.from_polars(log_of([("a", "w", 0), ("a", "x", 1), ("b", "w", 0)], start=0), items_of("wxy"))
    grown = shop.append(log_of([("a", "w", 2), ("b", "x", 1), ("a", "w", 0)], start=0))
    assert (grown.history("a"), grown.history("b")) == (["w", "x", "w"], ["w", "x"])
    with pytest.raises(LorarecError, match=r"user 'a' chose item 'x' at position 0, but .* up to position 1: .*order="):
        shop.append(log_of([("a", "x", 0)], start=0))
    in_order = shop.append(log_of([("a", "w", 0), ("c", "w", 0), ("a", "x", 0)], start=0), order="file")
    assert in_order.history("a") == ["w", "x", "w", "x"]
    assert in_order.interactions.filter(pl.col("user_id") == "c")["timestamp"].to_list() == [3]


@pytest.mark.parametrize(
    ("new_user", "new_item", "ids", "message"),
    [
        (
            "7",
            "012",
            "numbers",
            "has item_id '012' and shop has '12': .* the notation of the number: .* the same items",
        ),
        ("7", "12.0", "numbers", "has item_id '12.0' and shop has '12'"),
        (
            "7.0",
            "12",
            "numbers",
            "has user_id '7.0' and shop has '7': .* the notation of the number: .* the same users",
        ),
        ("7 ", "12", "trimmed", "has user_id '7 ' and shop has '7': .* white space"),
    ],
)
@pytest.mark.parametrize("is_old_the_unusual", [False, True])
def test_ids_that_differ_in_notation_alone_are_refused_or_read_as_those_of_the_dataset(
    new_user: str, new_item: str, ids: Any, message: str, is_old_the_unusual: bool
) -> None:
    (user, item), new = ("7", "12"), (new_user, new_item)
    if is_old_the_unusual:
        (user, item), new, message = new, (user, item), "differ only in"
    titles = pl.DataFrame({"item_id": [item], "title": ["Lamp"]})
    shop = Dataset.from_polars(log_of([(user, item, 5)]), titles, name="shop")
    log = log_of([(*new, 6)])
    with pytest.raises(LorarecError, match=message):
        shop.append(log)
    grown = shop.append(log, titles.with_columns(item_id=pl.lit(new[1])), ids=ids)
    assert (grown.history(user), grown.titles) == ([item, item], {item: "Lamp"})
    apart = shop.append(log, ids="as-written", keep_untitled=True).interactions
    assert apart.select("user_id", "item_id").sort("user_id", "item_id").rows() == sorted([(user, item), new])


def test_ids_of_a_dataset_that_would_become_one_are_refused() -> None:
    log, titles = (
        log_of([("a", "12", 5), ("a", "012", 6)]),
        pl.DataFrame({"item_id": ["12", "012"], "title": ["A", "B"]}),
    )
    shop = Dataset.from_polars(log, titles, name="shop")
    with pytest.raises(LorarecError, match="shop has item_id '012' and '12', which ids=\"numbers\" would read as one"):
        shop.append(log_of([("a", "12", 7)]), ids="numbers")


def test_saved_with_its_split_at_once(tmp_path: Path) -> None:
    rows = [(f"u{user}", f"i{(3 * user + at) % 20}", at) for user in range(10) for at in range(8)]
    titles = pl.DataFrame({"item_id": [f"i{k}" for k in range(20)], "title": [f"Thing {k}" for k in range(20)]})
    from lorarec.data import leave_one_out, load_split

    shop = Dataset.from_polars(log_of(rows), titles)
    split = leave_one_out(shop, new_items=0, negatives=3)
    saved = shop.save(tmp_path / "shop", split=split)
    assert load_split(Dataset.load(saved.folder)).fingerprint == split.fingerprint

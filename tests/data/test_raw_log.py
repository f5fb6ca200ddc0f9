"""Imports: duplicates, titles, overlap, k-core, and the report."""

from typing import Any

import polars as pl
import pytest

from lorarec.data import Dataset
from lorarec.data.raw_log import RawLog
from lorarec.errors import LorarecError

ROWS = [
    ("b", "x", 2),
    ("a", "x", 5),
    ("a", "y", 5),
    ("a", "x", 5),  # repeats the second row, with another in between
    ("a", "x", 6),
    ("a", "z", 7),
    ("b", "x", 2),  # repeats the first row
    ("b", "x", 2),
]


def _source(titles: dict[str, str | None], rows: list[tuple[str, str, int]] = ROWS) -> RawLog:
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    schema = {"item_id": pl.String, "title": pl.String}
    items = pl.DataFrame({"item_id": list(titles), "title": list(titles.values())}, schema=schema)
    return RawLog("toy", "a test", "free", interactions, items)


def _report(dataset: Dataset) -> dict[str, Any]:
    return dict(dataset.info["import"])


def test_exact_duplicates_are_dropped_and_counted() -> None:
    dataset = Dataset.from_raw_log(_source({"x": "X", "y": "Y", "z": "Z"}))
    assert list(dataset.interactions.select("user_id", "item_id", "timestamp").iter_rows()) == [
        ("a", "x", 5),
        ("a", "y", 5),
        ("a", "x", 6),
        ("a", "z", 7),
        ("b", "x", 2),
    ]
    report = _report(dataset)
    assert report["rows_read"] == 8
    assert report["duplicate_rows_dropped"] == 3
    assert report["users_below_three_interactions"] == 1
    assert dataset.info["source"] == "a test"
    assert dataset.info["licence"] == "free"


def test_a_log_of_one_moment_keeps_its_distinct_items() -> None:
    rows = [(user, item, 0) for user in "ab" for item in ("x", "y", "x")]
    assert Dataset.from_raw_log(_source({"x": "X", "y": "Y"}, rows)).interactions["item_id"].to_list() == [
        "x",
        "y",
        "x",
        "y",
    ]


@pytest.mark.parametrize("title", [None, "", " \t", "&nbsp;", "NA", "null", "nan", "NULL", " NaN "])
def test_items_without_title_are_dropped_or_named_by_id(title: str | None) -> None:
    source = _source({"x": title, "y": " Y&amp;Y ", "unseen": "U"})  # z has no row at all
    dropped = Dataset.from_raw_log(source)
    assert dropped.titles == {"y": "Y&Y"}
    assert dropped.interactions.height == 1
    assert _report(dropped)["untitled_items"] == 2
    assert _report(dropped)["untitled_rows_dropped"] == 4
    untitled = Dataset.from_raw_log(source, keep_untitled=True)
    assert untitled.titles == {"x": "x", "y": "Y&Y", "z": "z"}
    assert untitled.interactions.height == 5
    assert _report(untitled)["untitled_items"] == 2
    assert _report(untitled)["untitled_rows_dropped"] == 0


def test_no_title_at_all_is_refused_with_advice() -> None:
    with pytest.raises(LorarecError, match=r"no item has a title: give a table of items.*keep_untitled=True"):
        Dataset.from_raw_log(_source({}))
    assert Dataset.from_raw_log(_source({}), keep_untitled=True).titles == {"x": "x", "y": "y", "z": "z"}
    with pytest.raises(LorarecError, match=r"the log has an item '.', and titles are of items such as 'X1'\)"):
        Dataset.from_raw_log(_source({"X1": "One"}))


def test_of_repeated_items_the_first_with_a_title_counts() -> None:
    source = _source({"x": "X", "y": "Y", "z": None})
    more = pl.DataFrame({"item_id": ["z", "z"], "title": ["First", "Second"]})
    repeated = RawLog("toy", "a test", None, source.interactions, pl.concat([source.items, more]))
    assert Dataset.from_raw_log(repeated).titles["z"] == "First"


@pytest.mark.parametrize(
    ("titles", "count"),
    [
        (["X", "X"], 0),
        (["X", " X "], 0),
        (["X", None, "NA"], 0),
        (["X", "Other"], 1),
        (["X", "Other", "Third"], 1),
        (["X", "x"], 1),
    ],
)
def test_items_of_several_titles_are_counted(titles: list[str | None], count: int) -> None:
    source = _source({"y": "Y", "z": "Z"})
    more = pl.DataFrame({"item_id": ["x"] * len(titles), "title": titles})
    dataset = Dataset.from_raw_log(RawLog("toy", "a test", None, source.interactions, pl.concat([source.items, more])))
    assert _report(dataset)["items_with_several_titles"] == count
    assert dataset.titles["x"] == "X"


def test_unseen_items_stay_only_on_request() -> None:
    source = _source({"x": "X", "y": "Y", "z": "Z", "unseen": "U", "nameless": None})
    assert set(Dataset.from_raw_log(source).titles) == {"x", "y", "z"}
    assert set(Dataset.from_raw_log(source, keep_unseen=True).titles) == {"x", "y", "z", "unseen"}


def test_overlap_goes_before_the_core() -> None:
    square = [(user, item, 0) for user in "abc" for item in "xyz"]
    titles: dict[str, str | None] = {item: item.upper() for item in "wxyz"}
    source = _source(titles, [*square, ("a", "w", 1), ("d", "x", 0), ("d", "w", 1)])
    other = Dataset.from_raw_log(_source(titles, [("q", "w", 0)]), name="other")
    dataset = Dataset.from_raw_log(source, name="mine", without=[other], by=["titles"], k_core=2)
    assert dataset.name == dataset.info["name"] == "mine"
    assert dataset.info["counts"] == {"users": 3, "items": 3, "interactions": 9}
    assert [note.split(" (")[0] for note in dataset.info["filters"]] == ["without the titles of other", "2-core"]
    with pytest.raises(LorarecError, match="nothing is left of a 9-core"):
        Dataset.from_raw_log(source, k_core=9)

"""Filters of items by column: equal to a loop written from their definition, and what does not fit is refused."""

import datetime
import operator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.data import Dataset, ItemFilter, ItemMatcher, read_table
from lorarec.data.item_filters import MAX_MASKS
from lorarec.errors import LorarecError
from tests.factories import dataset_of

COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, wanted: value in wanted,
    "not in": lambda value, wanted: value not in wanted,
    "contains": lambda value, wanted: wanted in value,
}


def matcher_of(**columns: Any) -> ItemMatcher:
    """Return a matcher of items with these columns."""
    items = pl.DataFrame({**columns})
    names = [f"i{row:03}" for row in range(items.height)]
    items = items.with_columns(pl.Series("item_id", names), pl.Series("title", names))
    log = pl.DataFrame({"user_id": ["u"], "item_id": names[:1], "timestamp": [0]})
    return ItemMatcher(Dataset.from_frames("toy", log, items))


def found(matcher: ItemMatcher, text: str) -> list[int]:
    return np.flatnonzero(matcher.matches(ItemFilter.parse(text))).tolist()


NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, -0.25, 2.0, 1e20])


@given(
    st.lists(st.none() | NUMBERS, min_size=1, max_size=12), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), NUMBERS
)
def test_numbers_are_compared_as_in_a_loop(values: list[Any], op: Any, wanted: float) -> None:
    expected = [value is not None and bool(COMPARE[op](value, wanted)) for value in values]
    typed = matcher_of(price=pl.Series(values, dtype=pl.Float64, strict=False))
    assert typed.matches(ItemFilter("price", op, wanted)).tolist() == expected
    as_text = matcher_of(price=pl.Series([None if value is None else str(value) for value in values], dtype=pl.String))
    if any(value is not None for value in values):
        assert as_text.matches(ItemFilter("price", op, wanted)).tolist() == expected
        assert as_text.matches(ItemFilter.parse(f"price{op}{wanted}")).tolist() == expected


WORDS = st.sampled_from(["red", "redder", "Red", "white, red", "é"])


@given(
    st.lists(st.none() | WORDS, min_size=1, max_size=9),
    st.sampled_from(["=", "!=", "contains"]),
    st.lists(WORDS, min_size=1),
)
def test_text_is_compared_as_in_a_loop(values: list[Any], op: Any, wanted: list[str]) -> None:
    matcher = matcher_of(colour=pl.Series(values, dtype=pl.String))
    for each, value in ((op, wanted[0]), ("in", wanted), ("not in", wanted)):
        expected = [text is not None and bool(COMPARE[each](text, value)) for text in values]
        assert matcher.matches(ItemFilter("colour", each, value)).tolist() == expected


def test_text_of_files_is_read_as_what_it_is() -> None:
    matcher = matcher_of(
        price=[" 19.99", "20", "NA", "", None, "1e1"],
        stock=["True", "false", "", "true", None, "FALSE"],
        code=["01067", "1067", "", None, "1", "2"],
        long=["12345678901234567891", "12345678901234567892", "3", None, "", "5"],
        nothing=pl.Series([None] * 6, dtype=pl.String),
        comma=["1,5", "2", None, None, None, None],
    )
    assert found(matcher, "price<=20") == [0, 1, 5]
    assert found(matcher, "price<20") == [0, 5]
    assert found(matcher, "price in 10, 20.0") == [1, 5]
    assert found(matcher, "price not in 10, 20.0") == [0]
    assert found(matcher, "stock=true") == [0, 3]
    assert np.flatnonzero(matcher.matches(ItemFilter("stock", "!=", True))).tolist() == [1, 5]
    assert found(matcher, "code=1067") == [1]
    assert found(matcher, "long=12345678901234567891") == [0]
    assert found(matcher, "nothing!=x") == []
    with pytest.raises(
        LorarecError, match="column comma holds text: choose an operator from =, !=, in, not in, contains"
    ):
        found(matcher, "comma<2")


def test_types_of_frames() -> None:
    matcher = matcher_of(
        price=pl.Series([0.1, 0.2, float("nan"), None], dtype=pl.Float32),
        count=pl.Series([1, 2, None, 255], dtype=pl.UInt8),
        sold=[True, None, False, True],
        tags=[["a", "b"], ["ab"], [], ["b"]],
        size=["S", "M", None, "S"],
    )
    assert found(matcher, "price<=0.1") == found(matcher, "price=0.1") == [0]
    assert found(matcher, "price!=0.1") == [1]
    assert found(matcher, "count<=1.5") == [0]
    assert found(matcher, "count<1000") == [0, 1, 3]
    assert found(matcher, "count in 1,2.5,255") == [0, 3]
    assert found(matcher, "sold=false") == [2]
    assert found(matcher, "tags contains a") == [0]
    assert found(matcher, "size=S") == [0, 3]
    assert matcher.groups("size").tolist() == [1, 2, 0, 1]
    assert matcher.groups("sold").tolist() == [1, 0, 2, 1]
    assert matcher.groups("price").tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("source", ["csv", "parquet", "polars"])
def test_columns_of_an_import(source: str, tmp_path: Path) -> None:
    log = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [0, 1, 2]})
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "title": ["x", "y", "z"],
            "price": [19.99, 20.01, None],
            "stock": [True, False, None],
        }
    )
    if source == "polars":
        dataset = Dataset.from_polars(log, items)
    else:
        log.write_csv(tmp_path / "log.csv")
        getattr(items, f"write_{source}")(tmp_path / f"items.{source}")
        dataset = Dataset.from_raw_log(read_table(tmp_path / "log.csv", tmp_path / f"items.{source}"))
    matcher = ItemMatcher(dataset)
    assert found(matcher, "price<=20") == found(matcher, "price=19.99") == found(matcher, "stock=true") == [0]
    assert found(matcher, "price!=19.99") == found(matcher, "stock=false") == [1]


def test_large_integers_are_not_rounded() -> None:
    matcher = matcher_of(code=pl.Series([2**53, 2**53 + 1]))
    assert found(matcher, f"code={2**53 + 1}") == found(matcher, f"code>{2**53}") == [1]
    assert found(matcher, f"code<{10**30}") == [0, 1]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            ("prize", "<=", 20),
            "filter prize<=20: the items of toy have no column 'prize': choose from item_id, title, price",
        ),
        (
            ("brand", "<", "m"),
            "filter brand<m: column brand holds text: choose an operator from =, !=, in, not in, contains",
        ),
        (
            ("price", "contains", "2"),
            "column price holds numbers: choose an operator from =, !=, <, <=, >, >=, in, not in",
        ),
        (("price", "<=", "cheap"), "filter price<=cheap: column price holds numbers: 'cheap' is not a finite number"),
        (("price", "=", True), "True is not a finite number"),
        (("price", "<", float("nan")), "nan is not a finite number"),
        (("price", "<", 10**400), "is not a finite number"),
        (("brand", "=", 3), "column brand holds text: 3 is not text"),
        (("stock", "=", 1), "column stock holds true and false: 1 is not true or false"),
        (("tags", "=", "a"), "column tags holds lists of text: choose an operator from contains"),
        (("price", "~", 1), "unknown operator '~': choose from =, !=, <"),
        (("price", "in", 1), "in needs a list of values, got 1"),
        (("price", "in", []), "a value must be text, a number, true or false"),
        (("price", "=", [1]), "= needs one value"),
        (("price", "=", None), "a value must be text, a number, true or false, got None"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_choices(where: Any, message: str) -> None:
    matcher = matcher_of(price=[1.5, 2], brand=["a", "b"], stock=[True, False], tags=[["a"], []])
    with pytest.raises(LorarecError) as error:
        matcher.matches(ItemFilter(*where))
    assert message in str(error.value)


def test_columns_of_other_types_are_refused() -> None:
    items = pl.DataFrame({"item_id": ["1"], "title": ["lamp"]})
    dataset = dataset_of([("u", "1", 0)], {"1": "lamp"})
    object.__setattr__(dataset, "items", items.with_columns(since=datetime.date(2024, 1, 1)))
    with pytest.raises(LorarecError, match="column since of the items has type Date: filters read text"):
        ItemMatcher(dataset).matches(ItemFilter("since", "=", "2024"))
    with pytest.raises(LorarecError, match="column tags holds lists of text"):
        matcher_of(tags=[["a"]]).groups("tags")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("price<=20", ("price", "<=", "20")),
        (" category = red lamps ", ("category", "=", "red lamps")),
        ("list price>5", ("list price", ">", "5")),
        ("region in DE,AT", ("region", "in", ("DE", "AT"))),
        ('brand  not  in "Red, white", blue', ("brand", "not in", ("Red, white", "blue"))),
        ("in stock=yes", ("in stock", "=", "yes")),
        ("name contains a<b", ("name", "contains", "a<b")),
        ("a!=b=c", ("a", "!=", "b=c")),
    ],
)
def test_text_is_read_as_a_filter(text: str, where: Any) -> None:
    assert ItemFilter.parse(text) == ItemFilter(*where)
    assert ItemFilter.parse(str(ItemFilter.parse(text))) == ItemFilter(*where)


@pytest.mark.parametrize("text", ["", "price", "price<=", "<=20", "price 20"])
def test_text_that_is_no_filter(text: str) -> None:
    with pytest.raises(LorarecError, match="is not a filter: write a column, an operator"):
        ItemFilter.parse(text)


def test_masks_are_kept_within_a_bound_and_cannot_be_changed() -> None:
    matcher = matcher_of(price=list(range(100)))
    first = matcher.matches(ItemFilter("price", "<", 7))
    assert matcher.matches(ItemFilter("price", "<", 7.0)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = False
    for bound in range(MAX_MASKS + 10):
        assert matcher.matches(ItemFilter("price", ">=", bound)).sum() == 100 - bound
    assert matcher._mask.cache_info().currsize == MAX_MASKS


@pytest.mark.parametrize(
    ("column", "value", "accepted"),
    [
        *(
            ("price", value, isinstance(value, int) and not isinstance(value, bool))
            for value in (3, 2.5, "3", True, [])
        ),
        *(("size", value, accepted) for value, accepted in (("2", True), ("2.5", True), ("large", False), ("", True))),
        *(("size", value, False) for value in ("02", 3, "true")),
        *(("tags", value, isinstance(value, list)) for value in (["a"], [], "a")),
        *(("stock", value, isinstance(value, bool)) for value in (True, 0, "true")),
        *(("brand", value, isinstance(value, str)) for value in ("Lux", "3", 3)),
        ("weight", 3, True),
        ("weight", 2.5, True),
        ("price", 2**70, False),
    ],
)
def test_values_that_a_column_can_have(column: str, value: Any, accepted: bool) -> None:
    columns = {"price": [1, 2], "size": ["1", "2"], "tags": [["a"], []], "stock": [True, None], "brand": ["A", "1"]}
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["a", "b"], **columns, "weight": [1.5, None]}, strict=False)
    log = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [1]})
    assert ItemMatcher(Dataset.from_frames("shop", log, items)).accepts(column, value) == accepted

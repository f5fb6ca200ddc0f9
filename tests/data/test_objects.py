"""Columns of Python objects as columns of polars."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.data.column_tables import row_number
from lorarec.data.objects import refuse_mixed_ids, refuse_mixed_zones, series_of
from lorarec.errors import LorarecError

NOON = datetime(2024, 5, 1, 12)
TOKYO = timezone(timedelta(hours=9))
ID = UUID("12345678123456781234567812345678")


@pytest.mark.parametrize(
    ("objects", "dtype", "values"),
    [
        (["a", None], pl.String, ["a", None]),
        ([1, None, np.int16(2)], pl.Int64, [1, None, 2]),
        ([2**63, -1], pl.String, [str(2**63), "-1"]),
        ([2**200], pl.String, [str(2**200)]),
        ([0.5, None], pl.Float64, [0.5, None]),
        ([True, False], pl.Boolean, [True, False]),
        ([date(2024, 5, 1)], pl.Date, [date(2024, 5, 1)]),
        ([NOON, None], pl.Datetime("us"), [NOON, None]),
        ([NOON.replace(tzinfo=TOKYO), NOON.replace(tzinfo=UTC)], pl.Datetime("us", "UTC"), None),
        ([NOON, NOON.replace(tzinfo=UTC)], pl.String, ["2024-05-01 12:00:00", "2024-05-01 12:00:00+00:00"]),
        ([Decimal("1E+3"), Decimal("7.00")], pl.String, ["1000", "7.00"]),
        ([ID], pl.String, [str(ID)]),
        ([b"ab", memoryview(b"c")], pl.String, ["ab", "c"]),
        ([b"\xff"], pl.Object, [b"\xff"]),
        ([1, "a", 2.5], pl.String, ["1", "a", "2.5"]),
        ([["a"], ("b",)], pl.List(pl.String), [["a"], ["b"]]),
        ([["a"], 1], pl.Object, [["a"], 1]),
        ([None, None], pl.String, [None, None]),
        ([], pl.String, []),
    ],
)
def test_values_are_kept(objects: list[Any], dtype: Any, values: list[Any] | None) -> None:
    series = series_of(objects)
    assert series.dtype == dtype
    assert series.to_list() == (objects if values is None else values)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)) | st.lists(st.none() | st.floats()) | st.lists(st.text()))
def test_one_type_is_unchanged(objects: list[Any]) -> None:
    assert repr(series_of(objects).to_list()) == repr(objects)


@pytest.mark.parametrize(
    "objects", [[1, "b", None], ["1", "b"], [1, np.int64(2)], [0.5, None], [ID], [Decimal(1)], [None], []]
)
def test_ids_that_go_together(objects: list[Any]) -> None:
    refuse_mixed_ids(objects, "log", "sku", row_number)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([7, "b", None, "7"], "such as 7 in row 1 and '7' in row 4"),
        ([7, " 7"], "such as 7 in row 1 and ' 7' in row 2"),
        (["7", 7.0], "such as '7' in row 1 and 7.0 in row 2"),
        ([None, 1, 1.5], "such as 1 in row 2 and 1.5 in row 3"),
        ([Decimal(1), 1], "which may be the same id or not"),
        ([{"a": 1}], r"row 1 has \{'a': 1\} in column 'sku', a dict, which is no type of ids"),
    ],
)
def test_ids_that_do_not_go_together(objects: list[Any], message: str) -> None:
    with pytest.raises(LorarecError, match=message) as caught:
        refuse_mixed_ids(objects, "log", "sku", row_number)
    assert str(caught.value).startswith("log: ")
    assert "convert the column to text" in str(caught.value)


def test_times_with_and_without_a_zone() -> None:
    refuse_mixed_zones([NOON, None, date(2024, 5, 1)], "log", "at", row_number)
    with pytest.raises(LorarecError, match=r"column 'at' has times with and without a time zone: .*\+00:00 in row 2"):
        refuse_mixed_zones([NOON, NOON.replace(tzinfo=UTC)], "log", "at", row_number)

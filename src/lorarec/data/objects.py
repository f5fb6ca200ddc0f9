"""Columns of Python objects, from pandas and from databases, as columns of polars without loss."""

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl

from lorarec.errors import LorarecError

#: Types whose values polars stores unchanged.
_NATIVE: dict[type, pl.DataType] = {
    str: pl.String(),
    bool: pl.Boolean(),
    int: pl.Int64(),
    float: pl.Float64(),
    date: pl.Date(),
}
_NESTED = (list, tuple, dict, set, np.ndarray)
_HALF = re.compile("[\ud800-\udfff]")
_IDS = (str, int, float, Decimal, UUID, bytes, date)


def series_of(objects: Sequence[Any]) -> pl.Series:
    """Convert Python objects to a column; objects of different types become text.

    Args:
        objects: The values of a column; a missing value is None.

    Returns:
        Numbers, booleans, dates or datetimes (naive, or in UTC) if all values are of this type, lists or structures if
        there are any, and otherwise text, in which halves of characters (surrogates) are replaced by U+FFFD. Lists
        among other values, and bytes that are not UTF-8 text, give Object.
    """
    values = [_plain(each) for each in objects]
    kinds = {type(each) for each in values if each is not None}
    if any(issubclass(kind, _NESTED) for kind in kinds):
        return _nested(values)
    if kinds and all(issubclass(kind, datetime) for kind in kinds):
        if (times := _datetimes(values)) is not None:
            return times
    elif len(kinds) == 1 and (kind := kinds.pop()) in _NATIVE:
        try:
            return pl.Series(values, dtype=_NATIVE[kind])
        except (OverflowError, TypeError, UnicodeEncodeError):  # integers of more than 64 bits, halves of characters
            pass
    try:
        return pl.Series([None if each is None else _whole_text(_text(each)) for each in values], dtype=pl.String)
    except UnicodeDecodeError:
        return pl.Series(values, dtype=pl.Object)


def refuse_mixed_ids(objects: Sequence[Any], where: str, column: str, name_row: Callable[[int], str]) -> None:
    """Refuse ids of which it is unknown whether they are the same: 7 and 7.0, 7 and "7", True and 1.

    Whole numbers beside text are ids as they are written, unless a number and a text are written alike.

    Raises:
        LorarecError: The types of two values do not go together, or a type is no type of ids.
    """
    values = [_plain(each) for each in objects]
    rows: dict[type, int] = {}
    for row, value in enumerate(values):
        if value is not None:
            rows.setdefault(type(value), row)
        if isinstance(value, str) and _HALF.search(value):
            raise LorarecError(
                f"{where}: {name_row(row)} has {value!r} in column {column!r}, which contains half of a character "
                "(a surrogate), so different ids may become one: write the column again from its source"
            )
    remedy = "convert the column to text or to whole numbers"
    for kind, row in rows.items():
        if not issubclass(kind, _IDS):
            raise LorarecError(
                f"{where}: {name_row(row)} has {values[row]!r} in column {column!r}, a {kind.__name__}, which is no "
                f"type of ids: {remedy}"
            )
    if len(rows) < 2:
        return
    first, second = list(rows.values())[:2]
    if set(rows) <= {str, int}:
        numbers = {str(value): row for row, value in enumerate(values) if type(value) is int}
        alike = next((row for row, value in enumerate(values) if type(value) is str and value.strip() in numbers), None)
        if alike is None:
            return
        first, second = numbers[values[alike].strip()], alike
    raise LorarecError(
        f"{where}: column {column!r} has values of different types, such as {values[first]!r} in {name_row(first)} "
        f"and {values[second]!r} in {name_row(second)}, which may be the same id or not: {remedy}"
    )


def refuse_mixed_zones(objects: Sequence[Any], where: str, column: str, name_row: Callable[[int], str]) -> None:
    """Refuse datetimes of which some have a time zone and others have none.

    Raises:
        LorarecError: There are both.
    """
    rows: dict[bool, int] = {}
    for row, value in enumerate(objects):
        if isinstance(value, datetime):
            rows.setdefault(value.tzinfo is None, row)
    if len(rows) == 2:
        aware, naive = rows[False], rows[True]
        raise LorarecError(
            f"{where}: column {column!r} has times with and without a time zone: {objects[aware]} in "
            f"{name_row(aware)} and {objects[naive]} in {name_row(naive)}: give all of them a zone, or none"
        )


def _datetimes(values: list[Any]) -> pl.Series | None:
    """Return datetimes as a column; None if only some of them have a time zone."""
    zones = {each.tzinfo is not None for each in values if each is not None}
    if len(zones) > 1:
        return None
    return pl.Series(values, dtype=pl.Datetime("us", "UTC" if zones == {True} else None))


def _plain(value: Any) -> Any:
    """Return numbers of NumPy as those of Python, and buffers as bytes."""
    if isinstance(value, np.generic):
        return value.item()
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _whole_text(text: str) -> str:
    """Replace halves of surrogate pairs, which titles that were cut may end with, by the replacement character."""
    return _HALF.sub("\ufffd", text)


def _nested(values: list[Any]) -> pl.Series:
    try:
        return pl.Series([list(each) if isinstance(each, set | tuple) else each for each in values])
    except (TypeError, UnicodeEncodeError, pl.exceptions.PolarsError):  # scalars among lists
        return pl.Series(values, dtype=pl.Object)

"""Filters of items by the columns of a catalogue: price <= 20, region in DE, AT."""

import csv
import io
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl

from lorarec.data.tables import without_missing
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from lorarec.data.dataset import Dataset

FilterOperator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in", "contains"]
FilterValue = str | bool | int | float

#: Maximum number of masks that an `ItemMatcher` keeps; a mask has one byte for each item.
MAX_MASKS = 64
_LISTS = ("in", "not in")
_OPERATORS: dict[str, tuple[str, ...]] = {
    "text": ("=", "!=", "in", "not in", "contains"),
    "numbers": ("=", "!=", "<", "<=", ">", ">=", "in", "not in"),
    "true and false": ("=", "!=", "in", "not in"),
    "lists of text": ("contains",),
}
_TRUTH = {"true": True, "false": False}
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
#: Numbers with leading zeros or more digits than integers of 64 bits have are codes, such as 01067.
_CODE = r"^[+-]?(0[0-9]|[0-9]{19})"
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_LARGE_INTEGERS = (pl.UInt64, pl.Int128, pl.UInt128)
_TEXT = re.compile(
    r"\s*(?P<column>[^\s<>=!].*?)\s*(?P<op><=|>=|!=|=|<|>|\s(?:not\s+in|in|contains)\s)(?P<value>.*)", re.DOTALL
)


@dataclass(frozen=True)
class ItemFilter:
    """A condition on a column of the items; an item whose value is missing never matches, not even `!=`.

    Attributes:
        column: Name of a column of `Dataset.items`.
        op: Operator: =, !=, <, <=, >, >=, "in", "not in" or "contains", which is true of text that has the value as a
            part of it, and of lists that have it as an element.
        value: Text, number, or true or false; a sequence of them for "in" and "not in".

    Raises:
        LorarecError: The operator is unknown, or the value has a type that does not fit it.

    Examples:
        >>> from lorarec import ItemFilter
        >>> ItemFilter("price", "<=", 20)
        ItemFilter(column='price', op='<=', value=20)
        >>> ItemFilter.parse("region in DE, AT")
        ItemFilter(column='region', op='in', value=('DE', 'AT'))
    """

    column: str
    op: FilterOperator
    value: FilterValue | Sequence[FilterValue]

    def __post_init__(self) -> None:
        if self.op not in get_args(FilterOperator):
            raise LorarecError(f"unknown operator {self.op!r}: choose from {', '.join(get_args(FilterOperator))}")
        is_list = isinstance(self.value, Sequence) and not isinstance(self.value, str)
        if is_list != (self.op in _LISTS):
            wanted = "a list of values" if self.op in _LISTS else "one value"
            raise LorarecError(f"filter of column {self.column!r}: {self.op} needs {wanted}, got {self.value!r}")
        values = self.values
        if not values or not all(isinstance(value, str | bool | int | float) for value in values):
            raise LorarecError(
                f"filter of column {self.column!r}: a value must be text, a number, true or false, got {self.value!r}"
            )
        if is_list:
            object.__setattr__(self, "value", values)

    def __str__(self) -> str:
        """Return the filter as `parse` reads it."""
        space = " " if self.op[0].isalpha() else ""
        return f"{self.column}{space}{self.op}{space}{_listed(self.values) if self.op in _LISTS else self.value}"

    @property
    def values(self) -> tuple[FilterValue, ...]:
        """The value, or the values of a list, as a tuple."""
        if isinstance(self.value, Sequence) and not isinstance(self.value, str):
            return tuple(self.value)
        return (self.value,)

    @classmethod
    def parse(cls, text: str) -> "ItemFilter":
        """Read a filter that is written as text; values are text until they are compared with a column.

        Args:
            text: Column, operator and value, such as `price<=20`. Values of a list are separated by commas; a value
                that has a comma is put in double quotes.

        Raises:
            LorarecError: The text is not a filter.
        """
        match = _TEXT.fullmatch(text)
        if match is None or not match["value"].strip():
            raise LorarecError(
                f"{text!r} is not a filter: write a column, an operator ({', '.join(get_args(FilterOperator))}) and a "
                "value, as in price<=20"
            )
        op: Any = " ".join(match["op"].split())
        value = match["value"].strip()
        listed = [each.strip() for each in next(csv.reader([value], skipinitialspace=True))]
        return cls(match["column"], op, listed if op in _LISTS else value)


def _listed(values: Sequence[FilterValue]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


@dataclass(frozen=True)
class _Column:
    """The values of a column, and what they are: a key of `_OPERATORS`."""

    kind: str
    values: pl.Series


class ItemMatcher:
    """Find the items of a dataset that match filters; masks of the latest filters are kept. Thread-safe.

    Columns of text whose values are all numbers, or all true and false, are read as such, because importers store
    all columns of items as text. Numbers with leading zeros or more than 18 digits stay text. Empty text, NA, null and
    nan are missing.

    Args:
        dataset: Dataset of the items.

    Examples:
        >>> from lorarec import ItemFilter, load_sample
        >>> from lorarec.data import ItemMatcher
        >>> films = load_sample("action")
        >>> int(ItemMatcher(films).matches(ItemFilter("genres", "contains", "Western")).sum()) > 0
        True
    """

    def __init__(self, dataset: "Dataset") -> None:
        self._items, self._name = dataset.items, dataset.name
        self._column = lru_cache(self._read_column)
        self._groups = lru_cache(self._number_values)
        self._mask = lru_cache(MAX_MASKS, typed=True)(self._compare)

    def matches(self, where: ItemFilter) -> np.ndarray:
        """Return a mask (items,) of the items that match a filter; it is shared and cannot be written to.

        Raises:
            LorarecError: The items have no such column, the operator does not exist for its values, or the value has
                another type than they.
        """
        kind = self._known_column(where.column, f"filter {where}").kind
        if where.op not in _OPERATORS[kind]:
            raise LorarecError(
                f"filter {where}: column {where.column} holds {kind}: choose an operator from "
                f"{', '.join(_OPERATORS[kind])}"
            )
        # Values have one type when they are looked up, since 1 and True are the same key of a cache.
        return self._mask(where.column, where.op, *(_convert(value, kind, where) for value in where.values))

    def accepts(self, column: str, value: FilterValue | Sequence[str]) -> bool:
        """Return whether a column of the items can have a value beside those that it has, with the same filters.

        Raises:
            LorarecError: The items have no such column, or it has a type that filters do not read.
        """
        kind, dtype = self._known_column(column, f"value {value!r}").kind, self._items.schema[column]
        if not _fits(value, dtype):
            return False
        try:
            found = _read(pl.Series(column, [value], dtype, strict=True))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):  # an integer that is too large
            return False
        return kind == "text" or found.kind == kind or not found.values.drop_nulls().len()

    def groups(self, column: str) -> np.ndarray:
        """Return which value of a column each item has (items,), numbered from 1; 0 if it is missing.

        Raises:
            LorarecError: The items have no such column, or it holds lists.
        """
        if self._known_column(column, f"at most a number of items per {column}").kind == "lists of text":
            raise LorarecError(
                f"at most a number of items per {column}: column {column} holds lists of text: choose one with one "
                "value for each item"
            )
        return self._groups(column)

    def _known_column(self, name: str, what: str) -> _Column:
        if name not in self._items.columns:
            raise LorarecError(
                f"{what}: the items of {self._name} have no column {name!r}: choose from "
                f"{', '.join(self._items.columns)}"
            )
        return self._column(name)

    def _read_column(self, name: str) -> _Column:
        return _read(self._items[name])

    def _number_values(self, name: str) -> np.ndarray:
        values = self._column(name).values.to_frame("value")
        numbers = values.drop_nulls().unique(maintain_order=True).with_row_index("number", 1)
        return values.join(numbers, on="value", how="left", maintain_order="left")["number"].fill_null(0).to_numpy()

    def _compare(self, name: str, op: str, *wanted: Any) -> np.ndarray:
        column = self._column(name)
        values = column.values
        if column.kind == "lists of text":
            matches = values.list.contains(wanted[0])
        elif op == "contains":
            matches = values.str.contains(wanted[0], literal=True)
        elif op in _ORDER:
            matches = _ORDER[op](values, wanted[0])
        else:
            found = values.is_in(_as_values_of(values, wanted).implode())
            matches = found if op in ("=", "in") else ~found
        mask = matches.fill_null(False).to_numpy().copy()
        mask.flags.writeable = False
        return mask


def _fits(value: Any, dtype: pl.DataType) -> bool:
    """Return whether a value has the Python type of the values of a column."""
    if isinstance(dtype, pl.List):
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if dtype == pl.Boolean or isinstance(value, bool):
        return dtype == pl.Boolean and isinstance(value, bool)
    if dtype == pl.String:
        return isinstance(value, str)
    return isinstance(value, int if dtype.is_integer() else int | float) and not isinstance(value, str)


def _read(values: pl.Series) -> _Column:
    """Read the values of a column of items.

    Raises:
        LorarecError: The column has a type that filters do not read.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.List) and dtype.inner == pl.String:
        return _Column("lists of text", values)
    if dtype == pl.Boolean:
        return _Column("true and false", values)
    if dtype.is_float() or dtype.is_decimal():
        return _Column("numbers", values.cast(dtype if dtype.is_float() else pl.Float64).fill_nan(None))
    if dtype.is_integer() and dtype not in _LARGE_INTEGERS:
        return _Column("numbers", values.cast(pl.Int64))
    if dtype == pl.String:
        return _read_text(without_missing(values))
    raise LorarecError(
        f"column {values.name} of the items has type {dtype}: filters read text, numbers, true and false, and lists "
        "of text"
    )


def _read_text(text: pl.Series) -> _Column:
    present = text.drop_nulls()
    if len(present) and present.str.to_lowercase().is_in([*_TRUTH]).all():
        return _Column("true and false", text.str.to_lowercase() == "true")
    if len(present) and present.str.contains(_NUMBER).all() and not present.str.contains(_CODE).any():
        whole = text.cast(pl.Int64, strict=False)
        return _Column("numbers", whole if whole.null_count() == text.null_count() else text.cast(pl.Float64))
    return _Column("text", text)


def _convert(value: FilterValue, kind: str, where: ItemFilter) -> FilterValue:
    """Convert the value of a filter to the type of the values of a column.

    Raises:
        LorarecError: It is of another type.
    """
    converted: FilterValue | None = None
    if kind in ("text", "lists of text"):
        converted = value if isinstance(value, str) else None
    elif kind == "true and false":
        converted = value if isinstance(value, bool) else _TRUTH.get(str(value).lower())
    elif not isinstance(value, bool):
        converted = _number(value)
    if converted is None:
        wanted = {"numbers": "a finite number", "true and false": "true or false"}.get(kind, "text")
        raise LorarecError(f"filter {where}: column {where.column} holds {kind}: {value!r} is not {wanted}")
    return converted


def _number(value: str | int | float) -> int | float | None:
    """Return a finite number, as an integer if it is one of at most 64 bits; None if the value is not a number."""
    if isinstance(value, str) and not re.fullmatch(_NUMBER, value.strip()):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the largest float
        return None
    if not math.isfinite(number) or not number.is_integer():
        return number if math.isfinite(number) else None
    whole = int(Decimal(value))  # the float may be rounded
    return whole if -(2**63) <= whole < 2**63 else number


def _as_values_of(values: pl.Series, wanted: Sequence[FilterValue]) -> pl.Series:
    """Return the wanted values that a column can hold, with its type."""
    if values.dtype == pl.Int64:
        wanted = [value for value in wanted if isinstance(value, int)]
    return pl.Series(wanted, dtype=values.dtype, strict=False)

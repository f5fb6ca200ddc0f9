"""Import of interactions from data frames of polars or pandas; the user names the columns."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lorarec.data.raw_log import RawLog
from lorarec.data.sources.table import Columns, raw_log
from lorarec.data.tables import Table, TableFormat, lazy_table, row_number
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    import pandas as pd


def read_polars(
    interactions: pl.DataFrame | pl.LazyFrame,
    items: pl.DataFrame | pl.LazyFrame | None = None,
    *,
    columns: Columns | None = None,
    options: TableFormat | None = None,
    name: str = "dataset",
    licence: str | None = None,
) -> RawLog:
    """Read data frames of polars as `read_table` reads files; errors call them "log" and "items".

    Args:
        interactions: The log.
        items: The table of items; without it titles are read from the log.
        columns: The names of the columns.
        options: Format of the values; separator, header and quote do not apply.
        name: The name of the dataset.
        licence: The terms of use to record.

    Raises:
        LorarecError: A column is missing, or a value cannot be read.
    """
    for frame, where in ((interactions, "log"), (items, "items")):
        if frame is not None and not isinstance(frame, pl.DataFrame | pl.LazyFrame):
            raise LorarecError(f"{where} is a {type(frame).__name__}, not a polars data frame: convert it to one")
    log_table = lazy_table("log", interactions.lazy())
    item_table = None if items is None else lazy_table("items", items.lazy())
    return raw_log(log_table, item_table, columns, options, name=name, origin="polars data frame", licence=licence)


def read_pandas(
    interactions: "pd.DataFrame",
    items: "pd.DataFrame | None" = None,
    *,
    columns: Columns | None = None,
    options: TableFormat | None = None,
    name: str = "dataset",
    licence: str | None = None,
) -> RawLog:
    """Read data frames of pandas as `read_polars` reads those of polars; neither pandas nor pyarrow is imported.

    Raises:
        LorarecError: A column is missing, or a value cannot be read.
    """
    log_table = _pandas_table(interactions, "log")
    item_table = None if items is None else _pandas_table(items, "items")
    return raw_log(log_table, item_table, columns, options, name=name, origin="pandas data frame", licence=licence)


def _pandas_table(frame: "pd.DataFrame", where: str) -> Table:
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        raise LorarecError(f"{where} is a {type(frame).__name__}, not a pandas data frame: convert it to one")

    @cache
    def column(index: int) -> pl.Series:
        return _to_polars(frame.iloc[:, index])

    def read(indices: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        return pl.DataFrame([column(each).alias(str(number)) for number, each in enumerate(indices)]), row_number

    index_names = [name for name in frame.index.names if name is not None]
    hint = f"; {index_names[0]!r} is in the index: pass {where}.reset_index()" if index_names else ""
    return Table(where, [str(name) for name in frame.columns], lambda index: column(index).dtype, read, hint)


def _to_polars(values: "pd.Series") -> pl.Series:
    """Convert a column of pandas; text, categories and Python objects become text, missing values become null."""
    kind = values.dtype.kind
    if kind == "M":
        naive = values.dt.tz_convert(None) if values.dt.tz is not None else values
        return pl.Series(naive.to_numpy(dtype="datetime64[us]"))
    if kind in "iufbm" and isinstance(values.dtype, np.dtype):
        return pl.Series(values.to_numpy(), nan_to_null=True)
    objects: list[Any] = values.astype(object).where(values.notna(), None).tolist()
    if kind in "iufb":
        return pl.Series(objects)
    if any(isinstance(each, list | tuple | dict | set | np.ndarray) for each in objects):
        return _nested(objects)
    return pl.Series([None if each is None else str(each) for each in objects], dtype=pl.String)


def _nested(objects: list[Any]) -> pl.Series:
    try:
        return pl.Series([list(each) if isinstance(each, set | tuple) else each for each in objects])
    except (TypeError, pl.exceptions.PolarsError):  # scalars among lists
        return pl.Series(objects, dtype=pl.Object)

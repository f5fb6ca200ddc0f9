"""Tables of other libraries, whose columns the user names: polars, pandas, Arrow and Hugging Face datasets.

None of these libraries but polars is imported, so none has to be installed.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import polars as pl

from lorarec.data.column_tables import Table, column_table, lazy_table
from lorarec.data.objects import series_of
from lorarec.data.tables import BadTimes, Decimal, Ids, Order
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    import pandas as pd

#: Arrow types that polars does not read, or reads as bytes.
_UNREAD_BY_POLARS = ("decimal256", "month_day_nano_interval", "extension<arrow.uuid>")
_OFFSET = re.compile(r"[+-]\d\d:?\d\d")


class AppendOptions(TypedDict, total=False):
    """The options of `Dataset.append`: those of `Dataset.from_polars` that say how data frames are read."""

    user: str
    item: str
    time: str
    title: str
    rating: str | None
    items_id: str | None
    time_format: str | None
    bad_times: BadTimes
    order: Order
    decimal: Decimal | None
    ids: Ids | None
    keep_untitled: bool
    keep_unseen: bool


class FrameOptions(AppendOptions, total=False):
    """The options of `Dataset.from_polars`, which all other data frames have as well."""

    name: str
    licence: str | None
    k_core: int


def two_tables(convert: Callable[[Any, str], Table], log: Any, items: Any) -> tuple[Table, Table | None]:
    """Return a log and, if there are any, items as tables, which errors call "log" and "items"."""
    return convert(log, "log"), None if items is None else convert(items, "items")


def any_table(data: Any, where: str) -> Table:
    """Return a data frame of polars or pandas, a table of Arrow or a Hugging Face dataset as a table.

    Raises:
        LorarecError: It is something else, or cannot be read.
    """
    if isinstance(data, pl.DataFrame | pl.LazyFrame | Table):
        return polars_table(data, where)
    if hasattr(data, "iloc"):
        return pandas_table(data, where)
    if hasattr(data, "with_format") or isinstance(data, Mapping):
        return hf_table(data, where)
    return arrow_table(data, where)


def polars_table(frame: pl.DataFrame | pl.LazyFrame | Table, where: str) -> Table:
    """Return a data frame of polars as a table; a table is returned unchanged.

    Raises:
        LorarecError: It is something else.
    """
    if isinstance(frame, Table):
        return frame
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise _not_a(frame, where, "polars data frame")
    return lazy_table(where, frame.lazy(), kind="polars data frame")


def pandas_table(frame: "pd.DataFrame", where: str) -> Table:
    """Return a data frame of pandas as a table.

    Raises:
        LorarecError: It is something else.
    """
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        raise _not_a(frame, where, "pandas data frame")

    @cache
    def objects(index: int) -> list[Any] | None:
        return _python_objects(frame.iloc[:, index])

    def column(index: int) -> pl.Series:
        values = objects(index)
        return _native_column(frame.iloc[:, index]) if values is None else series_of(values)

    index_names = [name for name in frame.index.names if name is not None]
    hint = f"; {index_names[0]!r} is in the index: pass {where}.reset_index()" if index_names else ""
    return column_table(where, [str(name) for name in frame.columns], column, "pandas data frame", hint, objects)


def arrow_table(data: Any, where: str) -> Table:
    """Return an Arrow table, record batch or any object with an Arrow stream as a table.

    Raises:
        LorarecError: It is something else, or cannot be read.
    """
    if hasattr(data, "schema") and hasattr(data, "column"):
        return column_table(where, list(data.schema.names), lambda index: _of_arrow(data.column(index)), "Arrow table")
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return lazy_table(where, pl.DataFrame(data).lazy(), kind="Arrow table")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = str(error).splitlines()[0]
            raise LorarecError(f"{where} cannot be read as an Arrow table: {reason}") from error
    raise _not_a(data, where, "Arrow table")


def hf_table(data: Any, where: str) -> Table:
    """Return a `datasets.Dataset`, or all splits of a `datasets.DatasetDict` one after the other, as a table.

    Raises:
        LorarecError: It is something else, or its splits have different columns.
    """
    splits: dict[str, Any] = dict(data) if isinstance(data, Mapping) else {"": data}
    for split in splits.values():
        if type(split).__name__ == "IterableDataset":
            raise LorarecError(f"{where} is an IterableDataset: load it without streaming")
        if not hasattr(split, "with_format") or not hasattr(split, "select_columns"):
            raise _not_a(split, where, "Hugging Face dataset")
    if not splits:
        raise LorarecError(f"{where} has no splits: give a dataset with rows")
    (first, features), *others = ((name, split.features) for name, split in splits.items())
    for name, other in others:
        if other != features:
            raise LorarecError(
                f"{where}: the splits {first!r} and {name!r} have different columns ({', '.join(features)} and "
                f"{', '.join(other)}, or other types): give one of them, such as data[{first!r}]"
            )
    names = list(features)

    def column(index: int) -> pl.Series:
        name = names[index]
        parts = [split.with_format("arrow").select_columns([name])[:].column(0) for split in splits.values()]
        values = pl.concat([_of_arrow(part) for part in parts])
        labels = getattr(features[name], "names", None)  # of a ClassLabel, whose -1 stands for no label
        if labels is None:
            return values
        return values.replace_strict({-1: None, **dict(enumerate(labels))}, return_dtype=pl.String)

    return column_table(where, names, column, "Hugging Face dataset")


def to_pandas(frame: pl.DataFrame) -> "pd.DataFrame":
    """Convert a data frame of text and numbers to pandas without pyarrow; a missing number becomes NaN."""
    import pandas as pd

    columns = {each.name: each.to_list() if each.dtype == pl.String else each.to_numpy() for each in frame}
    return pd.DataFrame(columns)


def _not_a(data: Any, where: str, kind: str) -> LorarecError:
    article = "an" if kind[0] in "AEIOU" else "a"
    return LorarecError(f"{where} is a {type(data).__name__}, not {article} {kind}: convert it to one")


def _python_objects(values: "pd.Series") -> list[Any] | None:
    """Return the values of a column of pandas that is stored as Python objects, or in a type that NumPy lacks."""
    if values.dtype.kind == "M" or (values.dtype.kind in "iufbm" and isinstance(values.dtype, np.dtype)):
        return None
    objects: list[Any] = values.astype(object).where(values.notna(), None).tolist()
    return objects


def _native_column(values: "pd.Series") -> pl.Series:
    if values.dtype.kind == "M":
        naive = values.dt.tz_convert(None) if values.dt.tz is not None else values
        return pl.Series(naive.to_numpy(dtype="datetime64[us]"))
    return pl.Series(values.to_numpy(), nan_to_null=True)


def _of_arrow(column: Any) -> pl.Series:
    """Convert a column of pyarrow; types that polars does not read are read as Python objects."""
    kind = column.type
    if str(kind).startswith(_UNREAD_BY_POLARS):
        return series_of(column.to_pylist())
    if _OFFSET.fullmatch(getattr(kind, "tz", None) or ""):
        import pyarrow as pa

        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    return pl.Series(column)

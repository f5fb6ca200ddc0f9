"""Tables that are read column by column: scans of polars, and columns that are converted when they are needed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import polars as pl

from lorarec.data.objects import refuse_mixed_ids, refuse_mixed_zones
from lorarec.data.reading import table_errors
from lorarec.errors import LorarecError


def row_number(row: int) -> str:
    """Name a row of a table without lines in error messages, given its number from 0."""
    return f"row {row + 1}"


def more_rows(count: int, named: str = "") -> str:
    """Return how many further rows have a fault, for error messages: " (and 2 more rows)", or nothing for none.

    Args:
        count: Number of further rows.
        named: Their names, if the message lists them.
    """
    rows = "row" if count == 1 else "rows"
    return f" (and {count} more {rows}{named and f': {named}'})" if count else ""


@dataclass(frozen=True)
class Table:
    """A table that can be read column by column.

    Attributes:
        where: The name of the table in error messages, such as the path of its file.
        names: The names of its columns.
        dtype: Function from the number of a column to its type.
        hint: Advice at the end of the error message if a column is not found.
        kind: The kind of source in a few words, such as "pandas data frame".
        name_row: Function from the number of a row, from 0, to its name in error messages about Python objects.
        is_text: Whether the table is delimited text, which a separator, a header and quotes divide into fields.
    """

    where: str
    names: list[str]
    dtype: Callable[[int], pl.DataType]
    _read: Callable[[Sequence[int]], tuple[pl.DataFrame, Callable[[int], str]]]
    hint: str = ""
    kind: str = "table"
    _objects: Callable[[int], Sequence[Any] | None] = lambda _: None
    name_row: Callable[[int], str] = field(default=row_number, kw_only=True)
    is_text: bool = field(default=False, kw_only=True)

    def find(self, wanted: str) -> str | None:
        """Return the column with a name, if need be one that differs only in case, white space or a byte order mark.

        Raises:
            LorarecError: Several columns have such a name.
        """
        if self.names.count(wanted) == 1:
            return wanted
        alike = [name for name in self.names if _plain(name) == _plain(wanted)]
        if len(alike) > 1:
            raise LorarecError(f"{self.where} has {len(alike)} columns called {wanted!r}: rename all but one")
        return alike[0] if alike else None

    def read(self, columns: Mapping[str, str]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        """Read some columns, those of delimited text as text.

        Args:
            columns: New name -> name of a column.

        Returns:
            The columns in the order given, and a function that names a row in error messages, given its number from 0:
            "line 7" as in a text editor, or "row 7" for files without lines.

        Raises:
            LorarecError: The table is empty or damaged, or a row does not fit the header.
        """
        frame, name_row = self._read([self.names.index(name) for name in columns.values()])
        frame.columns = list(columns)
        return frame, name_row

    def require_single_values(self, columns: Iterable[str]) -> None:
        """Check that columns hold one value in each row.

        Raises:
            LorarecError: A column contains lists or structures.
        """
        for name in columns:
            dtype = self.dtype(self.names.index(name))
            if dtype.is_nested() or dtype == pl.Object:
                raise LorarecError(
                    f"{self.where}: column {name!r} has type {dtype}, so a row has several values: write the table "
                    "with one value in each row (explode lists, unnest structures)"
                )

    def require_one_type(self, ids: Iterable[str], time: str | None = None) -> None:
        """Check that columns of Python objects hold ids, and times, whose types go together.

        Raises:
            LorarecError: Ids have types that do not go together, or only some of the times have a time zone.
        """
        for name in ids:
            if (objects := self._objects(self.names.index(name))) is not None:
                refuse_mixed_ids(objects, self.where, name, self.name_row)
        if time is not None and (objects := self._objects(self.names.index(time))) is not None:
            refuse_mixed_zones(objects, self.where, time, self.name_row)


def lazy_table(
    where: str,
    lazy: pl.LazyFrame,
    name_row: Callable[[int], str] = row_number,
    explain_fault: Callable[[], None] | None = None,
    kind: str = "table",
    objects: Callable[[str, pl.DataType], Sequence[Any] | None] = lambda name, dtype: None,
    check: Callable[[Sequence[str]], None] = lambda _: None,
) -> Table:
    """Return a table that polars scans.

    Args:
        where: The name of the table in error messages.
        lazy: The scan.
        name_row: Function from the number of a row, from 0, to its name in error messages.
        explain_fault: Called if polars cannot read the table, to raise an error that names the line.
        kind: The kind of source in a few words.
        objects: Function from the name and the type of a column to its Python objects, None if its values have one
            type.
        check: Called with the names of columns that were read, to raise an error about what polars does not refuse.
    """

    @contextmanager
    def scan_errors() -> Iterator[None]:
        with table_errors(where):
            try:
                yield
            except pl.exceptions.PolarsError:
                if explain_fault is not None:
                    explain_fault()
                raise

    def read(indices: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        # Some writers store text as Binary, without the logical type of text.
        chosen = [
            (pl.nth(each).cast(pl.String) if types[each] == pl.Binary else pl.nth(each)).alias(str(number))
            for number, each in enumerate(indices)
        ]
        with scan_errors():
            frame = lazy.select(chosen).collect(engine="streaming")
            check([names[each] for each in indices])
        return frame, name_row

    with scan_errors():
        schema = lazy.collect_schema()
    names, types = schema.names(), schema.dtypes()
    return Table(
        where,
        names,
        types.__getitem__,
        read,
        kind=kind,
        _objects=lambda index: objects(names[index], types[index]),
        name_row=name_row,
    )


def column_table(
    where: str,
    names: list[str],
    column: Callable[[int], pl.Series],
    kind: str,
    hint: str = "",
    objects: Callable[[int], Sequence[Any] | None] = lambda _: None,
) -> Table:
    """Return a table whose columns are converted one by one, when they are needed.

    Args:
        where: The name of the table in error messages.
        names: The names of its columns.
        column: Function from the number of a column to its values; it is called once for each.
        kind: The kind of source in a few words.
        hint: Advice at the end of the error message if a column is not found.
        objects: Function from the number of a column to its Python objects, None if its values have one type.
    """

    @cache
    def converted(index: int) -> pl.Series:
        with table_errors(f"{where}: column {names[index]!r}"):
            values = column(index)
            return values.cast(pl.String) if values.dtype == pl.Binary else values

    def read(indices: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
        return pl.DataFrame([converted(each).alias(str(number)) for number, each in enumerate(indices)]), row_number

    return Table(where, names, lambda index: converted(index).dtype, read, hint, kind, objects)


def _plain(name: str) -> str:
    return name.replace("\ufeff", "").strip().casefold()

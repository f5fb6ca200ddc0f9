"""Import of interactions from a database: the rows of an SQL query, by SQLAlchemy or by DuckDB.

No message names a user, a password or a parameter of the connection.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from lorarec.data.column_tables import Table, column_table, row_number
from lorarec.data.objects import series_of
from lorarec.data.raw_log import RawLog, folder_name
from lorarec.data.sources.remote import opened_table, shown_url
from lorarec.data.sources.table import Columns, raw_log
from lorarec.data.tables import TableFormat
from lorarec.errors import LorarecError

_EXAMPLES = "postgresql://user@host/shop, sqlite:///shop.db or duckdb:///shop.duckdb"
_DUCKDB = "duckdb://"
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)

#: Runs a query, given with its name in error messages.
Run = Callable[[str, str], Table]


def read_query(
    uri: str,
    query: str,
    items: str | Path | None = None,
    *,
    items_query: str | None = None,
    columns: Columns | None = None,
    options: TableFormat | None = None,
    licence: str | None = None,
) -> RawLog:
    """Read the rows of an SQL query as `read_table` reads a file; errors call the tables "query" and "items query".

    Nothing is committed to the database. Rows at the same time are in the order of the query.

    Args:
        uri: The connection: a URL of SQLAlchemy, or `duckdb:///` and a path. `duckdb://` is a database in memory, whose
            queries can read files.
        query: The query of the log.
        items: A file with the items, as for `read_table`; None if `items_query` gives them or titles are in the log.
        items_query: The query of the items in the same database.
        columns: The names of the columns.
        options: Format of the values; separator, header and quote apply to a file of items only.
        licence: The terms of use to record.

    Raises:
        LorarecError: The library of the database is not installed, the database or a query is refused, a column is
            missing, a value cannot be read, or the order of the rows is to be used and the query gives none.
    """
    if options is not None and options.order == "file" and not _ORDERED.search(query):
        raise LorarecError('order="file" needs a query with ORDER BY: a database has its rows in no order')
    if items is not None and items_query is not None:
        raise LorarecError("items come from a file or from items_query: give one of them")
    with ExitStack() as stack:
        run = stack.enter_context(_duckdb(uri) if uri.startswith(_DUCKDB) else _sqlalchemy(uri))
        log = run(query, "query")
        items_table = None
        if items_query is not None:
            items_table = run(items_query, "items query")
        elif items is not None:
            items_table = stack.enter_context(opened_table(items, options))
        name = folder_name(Path(_location(uri)).stem)
        return raw_log(log, items_table, columns, options, name=name, origin=log.kind, licence=licence)


@contextmanager
def _sqlalchemy(uri: str) -> Iterator[Run]:
    if "://" not in uri:
        raise LorarecError(f"a query needs a connection: give a URI such as {_EXAMPLES}")
    try:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise LorarecError(f"{shown_url(uri)} needs SQLAlchemy to be read: pip install 'lorarec[sql]'") from None
    backend = uri.partition("://")[0].partition("+")[0]
    if backend == "sqlite" and not Path(_location(uri)).is_file():
        raise LorarecError(f"{shown_url(uri)}: there is no file {_location(uri)!r}: give the path of a database")

    try:
        engine = create_engine(uri)
    except ImportError as error:
        raise LorarecError(f"{shown_url(uri)} needs {error.name} to be read: pip install {error.name}") from None
    except (SQLAlchemyError, ValueError) as error:
        raise LorarecError(
            f"{shown_url(uri)} is not a usable connection ({_reason(error, uri)}): give a URI such as {_EXAMPLES}"
        ) from None

    def run(query: str, where: str) -> Table:
        try:
            # Without parameters no character of the query has another meaning.
            with engine.connect().execution_options(no_parameters=True) as connection:
                if backend == "sqlite":  # whose statements other than changes of rows take effect without a commit
                    connection.exec_driver_sql("PRAGMA query_only = ON")
                result = connection.exec_driver_sql(query)
                if not result.returns_rows:
                    raise LorarecError(f"{where} returns no table: give a SELECT")
                names, rows = list(result.keys()), result.fetchall()
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise LorarecError(f"{where}: {shown_url(uri)} refused it: {_reason(error, uri)}") from None
        values: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(names)
        kind = f"{backend} query"
        return column_table(where, names, lambda index: series_of(values[index]), kind, objects=values.__getitem__)

    try:
        yield run
    finally:
        engine.dispose()


@contextmanager
def _duckdb(uri: str) -> Iterator[Run]:
    try:
        import duckdb
    except ImportError:
        raise LorarecError(f"{shown_url(uri)} needs DuckDB to be read: pip install 'lorarec[duckdb]'") from None
    database = uri.removeprefix(_DUCKDB).removeprefix("/")
    try:
        connection = duckdb.connect(database or ":memory:", read_only=bool(database))
    except duckdb.Error as error:
        raise LorarecError(f"{shown_url(uri)} cannot be opened: {_reason(error, uri)}") from None

    @contextmanager
    def refusals(where: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise LorarecError(f"{where}: {shown_url(uri)} refused it: {_reason(error, uri)}") from None

    def run(query: str, where: str) -> Table:
        with refusals(where):
            found = connection.sql(query)
            if found is None:
                raise LorarecError(f"{where} returns no table: give a SELECT")
            # polars has no intervals.
            chosen = [
                f'CAST("{quoted}" AS VARCHAR)' if str(kind) == "INTERVAL" else f'"{quoted}"'
                for name, kind in zip(found.columns, found.types, strict=True)
                if (quoted := name.replace('"', '""'))
            ]

            def frame(indices: Sequence[int], rows: Any) -> pl.DataFrame:
                return pl.DataFrame(
                    rows.project(", ".join(f'{chosen[each]} AS "{n}"' for n, each in enumerate(indices)))
                )

            types = frame(range(len(chosen)), found.limit(0)).dtypes

        def read(indices: Sequence[int]) -> tuple[pl.DataFrame, Callable[[int], str]]:
            with refusals(where):
                read = frame(indices, found)
                return read.with_columns(pl.col(pl.Binary).cast(pl.String)), row_number

        return Table(where, list(found.columns), types.__getitem__, read, kind="DuckDB query")

    with connection:
        yield run


def _location(uri: str) -> str:
    """Return the name of a database, or the path of its file, without anything that could be secret."""
    address = uri.partition("://")[2].partition("?")[0].rpartition("@")[2]
    return unquote(address.partition("/")[2]) or uri.partition("://")[0]


def _reason(error: Exception, uri: str) -> str:
    """Return the first line of an error without the user, the password and the parameters of the connection."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    address, _, parameters = uri.partition("://")[2].partition("?")
    user, _, password = address.rpartition("@")[0].partition(":")
    for secret in (uri, password, unquote(password)):
        reason = reason.replace(secret, "***") if secret else reason
    for word in (user, *(each.partition("=")[2] for each in parameters.split("&"))):
        reason = re.sub(rf"(?<!\w){re.escape(unquote(word))}(?!\w)", "***", reason) if word else reason
    return reason

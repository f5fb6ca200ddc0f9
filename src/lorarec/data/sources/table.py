"""Import of any table of interactions, with or without a table of items; the user names the columns."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from lorarec.data.column_tables import Table, lazy_table
from lorarec.data.columns import ITEM, RATING, TIME, TITLE, USER
from lorarec.data.fields import clean_ids, read_interactions, refuse_rounded
from lorarec.data.raw_log import RawLog, folder_name
from lorarec.data.sources.movielens import read_movies_dat, readable_genres
from lorarec.data.sources.remote import opened_table, shown_url
from lorarec.data.tables import Ids, TableFormat
from lorarec.errors import LorarecError


@dataclass(frozen=True)
class Columns:
    """The names of the columns in the user's tables.

    Attributes:
        user: The column of user ids.
        item: The column of item ids, in both tables.
        time: The column of times or positions.
        rating: The column of ratings; if None, a column `rating` is used if there is one.
        title: The column of item titles, in the table of items or, without such a table, in that of interactions.
        items_id: The column of item ids in the table of items; if None, it is `item` as well.

    Raises:
        LorarecError: A name is not text.
    """

    user: str = USER
    item: str = ITEM
    time: str = TIME
    rating: str | None = None
    title: str = TITLE
    items_id: str | None = None

    def __post_init__(self) -> None:
        for option, name in vars(self).items():
            if not isinstance(name, str) and not (name is None and option in ("rating", "items_id")):
                raise LorarecError(f"option {option} must be the name of a column as text, got {name!r}")


def read_table(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    columns: Columns | None = None,
    options: TableFormat | None = None,
    licence: str | None = None,
) -> RawLog:
    """Read CSV, TSV and other delimited text, JSON (lines or an array) or Parquet; text may be gzipped.

    Args:
        interactions: The log: a file or a folder of Parquet files, or its URL (`s3://bucket/log`), which fsspec reads.
        items: A table of items in one of the same formats, or MovieLens's `movies.dat`. Its other columns are stored as
            text.
        columns: The names of the columns.
        options: Format of the tables and their values; separator, header, quote and ids apply to
            both tables, the others to the log only.
        licence: The terms of use to record.

    Raises:
        LorarecError: A file or column is missing, or a value cannot be read.
    """
    columns, options = columns or Columns(), options or TableFormat()
    path = Path(shown_url(str(interactions)))
    with ExitStack() as stack:
        log = stack.enter_context(opened_table(interactions, options))
        item_table = None
        if items is not None and Path(items).name == "movies.dat":
            item_table = lazy_table(str(items), readable_genres(read_movies_dat(Path(items))).lazy())
            columns = replace(columns, items_id=ITEM, title=TITLE)
        elif items is not None:
            item_table = stack.enter_context(opened_table(items, options))
        stem = path.name.split(".")[0]
        name = folder_name(path.absolute().parent.name if stem in ("interactions", "ratings") else stem)
        return raw_log(log, item_table, columns, options, name=name, origin=f"table {path.name}", licence=licence)


def raw_log(
    table: Table,
    items: Table | None,
    columns: Columns | None,
    options: TableFormat | None,
    *,
    name: str,
    origin: str,
    licence: str | None,
) -> RawLog:
    """Read the columns of a log and of a table of items, and clean them.

    Args:
        table: The log.
        items: The table of items, or None if titles are in the log.
        columns: The names of the columns in both tables.
        options: Format of the values.
        name: The name of the dataset.
        origin: Description of the source of the data.
        licence: The terms of use to record.

    Raises:
        LorarecError: A column is missing, a value cannot be read, or an option has no effect on the tables.
    """
    columns, options = columns or Columns(), options or TableFormat()
    _refuse_unused_layout(table, items, options)
    if options.order == "file" and columns.time != TIME:
        raise LorarecError('option time has no use with order="file", which reads no times: give one of them')
    wanted = {USER: columns.user, ITEM: columns.item}
    if options.order == "time":
        wanted[TIME] = columns.time
    if columns.rating or table.find(RATING):
        wanted[RATING] = columns.rating or RATING
    if items is None and (columns.title != TITLE or table.find(TITLE)):
        wanted[TITLE] = columns.title
    chosen = _find_columns(table, wanted, None if items is None else options.separator)
    table.require_single_values(chosen.values())
    table.require_one_type([chosen[USER], chosen[ITEM]], chosen.get(TIME))
    raw, name_row = table.read(chosen)
    if raw.is_empty():
        raise LorarecError(f"{table.where} has no rows")
    _refuse_unused_formats(raw, chosen, table.where, options)
    if options.order == "file":
        raw = raw.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(TIME))
    rows, report = read_interactions(raw, table.where, options, name_row)
    if items is not None:
        texts = _item_texts(items, columns, options)
        if options.ids is None:
            refuse_similar_ids(rows[ITEM], table.where, texts[ITEM], items.where)
    elif TITLE in chosen:
        named = pl.DataFrame([clean_ids(raw[ITEM], options.ids), raw[TITLE].cast(pl.String)])
        texts = named.unique(maintain_order=True)
    else:
        texts = pl.DataFrame(schema={ITEM: pl.String, TITLE: pl.String})
    return RawLog(name, origin, licence, rows, texts, report=report)


def _refuse_unused_layout(table: Table, items: Table | None, options: TableFormat) -> None:
    """Refuse options of delimited text for tables of which none is.

    Raises:
        LorarecError: There is such an option.
    """
    if table.is_text or (items is not None and items.is_text):
        return
    given = {
        "option separator": options.separator is not None,
        "option quote": options.quote is not None,
        "header=False": not options.header,
    }
    if unused := [name for name, is_given in given.items() if is_given]:
        also = "" if items is None else f" and {items.where}"
        raise LorarecError(
            f"{' and '.join(unused)} would have no effect on {table.where}{also}: only text such as CSV has "
            "separators, quotes and a header: leave it out"
        )


def _refuse_unused_formats(raw: pl.DataFrame, chosen: dict[str, str], where: str, options: TableFormat) -> None:
    """Refuse formats of text for times and ratings that are not text.

    Raises:
        LorarecError: There is one.
    """
    if options.time_format is not None and raw[TIME].dtype.is_temporal():
        raise LorarecError(
            f"{where}: option time_format would have no effect on column {chosen[TIME]!r}, whose type is "
            f"{raw[TIME].dtype}: leave it out"
        )
    if options.decimal is None:
        return
    if RATING not in chosen:
        raise LorarecError(f'{where}: option decimal is for ratings, and there are none: name them with rating="..."')
    if raw[RATING].dtype != pl.String:
        raise LorarecError(
            f"{where}: option decimal would have no effect on column {chosen[RATING]!r}, whose type is "
            f"{raw[RATING].dtype}: leave it out"
        )


def _item_texts(table: Table, columns: Columns, options: TableFormat) -> pl.DataFrame:
    chosen = _find_columns(
        table, {ITEM: columns.items_id or columns.item, TITLE: columns.title}, options.separator, "items_id"
    )
    table.require_single_values(chosen.values())
    table.require_one_type([chosen[ITEM]])
    others = {name: name for name in table.names if name not in chosen.values() and name not in (ITEM, TITLE)}
    read, name_row = table.read(chosen | others)
    refuse_rounded(read[ITEM], table.where, name_row)
    texts = [text for column in read if (text := _as_text(column)) is not None]
    named = pl.DataFrame(texts).with_columns(clean_ids(read[ITEM], options.ids))
    return named.filter(pl.col(ITEM).str.strip_chars() != "")


def _as_text(column: pl.Series) -> pl.Series | None:
    """Convert a column to text: lists joined by commas, datetimes in UTC; NaN becomes null.

    Returns:
        The text; None for other nested types, durations and objects.
    """
    if column.dtype.base_type() == pl.List:
        if column.dtype.inner.is_nested():  # type: ignore[attr-defined]
            return None
        return column.cast(pl.List(pl.String)).list.join(", ")
    if column.dtype.base_type() == pl.Datetime:
        in_utc = column.dt.convert_time_zone("UTC") if column.dtype.time_zone else column  # type: ignore[attr-defined]
        return in_utc.dt.strftime("%Y-%m-%d %H:%M:%S%.f")
    if column.dtype.is_float():
        column = column.fill_nan(None)
    is_value = not column.dtype.is_nested() and column.dtype not in (pl.Object, pl.Duration)
    return column.cast(pl.String) if is_value else None


def refuse_unseen_without_items(keep_unseen: bool, items: object) -> None:
    """Refuse to keep items that nobody interacted with if there is no table that has any.

    Raises:
        LorarecError: `keep_unseen` is set, and `items` is None.
    """
    if keep_unseen and items is None:
        raise LorarecError("option keep_unseen needs option items, the table that has items nobody interacted with")


def refuse_similar_ids(log: pl.Series, log_name: str, known: pl.Series, known_name: str) -> None:
    """Refuse tables if some of their ids match only without white space or as numbers.

    Args:
        log: The ids of a log; the name of the column is that of the message.
        log_name: The name of the log in the message.
        known: The ids of the other table.
        known_name: The name of the other table in the message.

    Raises:
        LorarecError: There are such ids; the message gives an example from each table.
    """
    names = log.unique().sort()
    apart = names.filter(~names.is_in(known.implode()))
    others = pl.DataFrame({"id": known.unique(maintain_order=True)})
    modes: dict[Ids, str] = {"trimmed": "white space", "numbers": "the notation of the number"}
    for mode, difference in modes.items():
        alike = pl.DataFrame({"id": apart, "key": clean_ids(apart, mode)}).join(
            others.with_columns(clean_ids(others["id"], mode).alias("key")), on="key", maintain_order="left"
        )
        if not alike.is_empty():
            first, _, second = alike.row(0)
            meant = "items" if log.name == ITEM else "users"
            raise LorarecError(
                f"{log_name} has {log.name} {first!r} and {known_name} has {second!r}: {alike['id'].n_unique()} of "
                f'{len(names)} ids differ only in {difference}: use ids="{mode}" if they are the same {meant}, and '
                'ids="as-written" if not'
            )


def _find_columns(
    table: Table, wanted: dict[str, str], separator: str | None, item_argument: str = "item"
) -> dict[str, str]:
    """Find the columns of a table, which was read with a separator if one is given: meaning -> name in the table.

    Raises:
        LorarecError: A column is missing.
    """
    arguments = {USER: "user", ITEM: item_argument, TIME: "time", RATING: "rating", TITLE: "title"}
    chosen = {}
    for meaning, name in wanted.items():
        name_in_table = table.find(name)
        if name_in_table is None:
            raise LorarecError(
                f'{table.where}: no column {name!r} for {meaning}: name the right one with {arguments[meaning]}="..." '
                f"(there are {', '.join(table.names)}){table.hint or _hint(table, meaning, separator)}"
            )
        chosen[meaning] = name_in_table
    return chosen


def _hint(table: Table, meaning: str, separator: str | None) -> str:
    """Return a likely reason why a column was not found, for the end of the error message."""
    names = table.names
    for quote, word in (('"', "double"), ("'", "single")):
        if any(name.startswith(quote) and name.endswith(quote) for name in names):
            return f'; the names are in quotes: use quote="{word}"'
    other = next((each for each in (";", "\t", "|", ",") if len(names) == 1 and each in names[0]), None)
    if other and separator is not None:
        return (
            f"; fields seem to be separated by {other!r}, but separator={separator!r} holds for both tables: write one "
            "of them with the separator of the other, or as Parquet"
        )
    if other:
        return f"; fields seem to be separated by {other!r}: use separator={other!r}"
    if any(name[:1].isdigit() for name in names):
        return "; the first line seems to contain values: use header=False, then columns are column_1, column_2, ..."
    if meaning == TIME:
        return '; a log without times can be read in the order of its rows: use order="file"'
    return ""

"""Any table of interactions, with or without a table of items; the user names the columns."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lorarec.data.assemble import Source
from lorarec.data.columns import ITEM, RATING, TIME, TITLE, USER
from lorarec.data.dataset import folder_name
from lorarec.data.fields import clean_interactions
from lorarec.data.reading import collect, column_names, scan_table
from lorarec.data.sources.movielens import read_movies_dat, readable_genres
from lorarec.errors import LorarecError


@dataclass(frozen=True)
class Columns:
    """What the columns are called in the user's tables.

    Attributes:
        user: user id.
        item: item id, in both tables.
        time: moment or position.
        rating: None takes a column `rating` if there is one.
        title: item title, in the table of items, or beside the interactions if there is no such table.
    """

    user: str = USER
    item: str = ITEM
    time: str = TIME
    rating: str | None = None
    title: str = TITLE


def read_table(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    columns: Columns | None = None,
    separator: str | None = None,
    header: bool = True,
    licence: str | None = None,
) -> Source:
    """Read CSV, TSV, Parquet or JSON lines (text may be gzipped).

    Args:
        interactions: the log.
        items: a table of items, of the same forms, or MovieLens's `movies.dat`. Its other columns come along as text.
        columns: what the columns are called.
        separator: between CSV fields; a comma, or a tab for .tsv, if None.
        header: False when the CSV has no header line; its columns are then column_1, column_2, ...
        licence: terms of use to record.

    Raises:
        LorarecError: a file or column is missing, or a value cannot be read.
    """
    columns = columns or Columns()
    path = Path(interactions)
    lazy = scan_table(path, separator, header)
    names = column_names(lazy, path)
    chosen = {USER: columns.user, ITEM: columns.item, TIME: columns.time}
    if columns.rating or RATING in names:
        chosen[RATING] = columns.rating or RATING
    _require(chosen, names, path)
    raw = collect(lazy.select(pl.col(old).alias(new) for new, old in chosen.items()), path)
    rows = clean_interactions(raw, path)
    del raw
    if items is not None:
        item_table = _items(Path(items), columns, separator, header)
    elif columns.title in names:
        titles = lazy.select(pl.col(columns.item).cast(pl.String).alias(ITEM), pl.col(columns.title).alias(TITLE))
        item_table = collect(titles.unique(maintain_order=True), path)
    else:
        item_table = pl.DataFrame(schema={ITEM: pl.String, TITLE: pl.String})
    generic = path.name.split(".")[0] in ("interactions", "ratings")
    name = folder_name(path.absolute().parent.name if generic else path.name.split(".")[0])
    return Source(name, f"table {path.name}", licence, rows, item_table)


def _items(path: Path, columns: Columns, separator: str | None, header: bool) -> pl.DataFrame:
    if path.name == "movies.dat":
        return readable_genres(read_movies_dat(path))
    lazy = scan_table(path, separator, header)
    names = column_names(lazy, path)
    _require({ITEM: columns.item, TITLE: columns.title}, names, path)
    table = collect(lazy.rename({columns.item: ITEM, columns.title: TITLE}), path)
    texts = [text for column in table if (text := _as_text(column)) is not None]
    return pl.DataFrame(texts).drop_nulls(ITEM)


def _as_text(column: pl.Series) -> pl.Series | None:
    """Text of a column; lists are joined by commas; what has no plain text is left out."""
    if column.dtype.base_type() == pl.List:
        if column.dtype.inner.is_nested():  # type: ignore[attr-defined]
            return None
        return column.cast(pl.List(pl.String)).list.join(", ")
    return None if column.dtype.is_nested() else column.cast(pl.String)


def _require(chosen: dict[str, str], names: list[str], path: Path) -> None:
    options = {USER: "--user", ITEM: "--item", TIME: "--time", RATING: "--rating", TITLE: "--title"}
    for meaning, name in chosen.items():
        if name not in names:
            raise LorarecError(
                f"{path}: no column {name!r} for {meaning}: name the right one with {options[meaning]} "
                f"(there are {', '.join(names)})"
            )

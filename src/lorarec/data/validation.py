"""Checks of the tables of a dataset: their columns and types, and that they belong together."""

from pathlib import Path

import polars as pl
from polars import selectors

from lorarec.data.columns import ITEM, RATING, TIME, TITLE, USER
from lorarec.errors import LorarecError

INTERACTION_SCHEMA = pl.Schema({USER: pl.String, ITEM: pl.String, TIME: pl.Int64, RATING: pl.Float32})


def read_parquet(path: Path, remedy: str = "import the dataset again") -> pl.DataFrame:
    """Read a Parquet file.

    Args:
        path: Path of the file.
        remedy: Advice at the end of the error message.

    Raises:
        LorarecError: The file is missing or is not Parquet.
    """
    try:
        return pl.read_parquet(path, glob=False)
    except FileNotFoundError:
        raise LorarecError(f"{path} is missing: {remedy}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise LorarecError(f"{path} is not readable Parquet ({reason}): {remedy}") from error


def canonical_tables(
    interactions: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame | None, where: str | Path
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame | None]:
    """Return the tables of a dataset with the columns and types that `Dataset` describes.

    Args:
        interactions: Interactions of users with items.
        items: Items.
        users: Users, or None.
        where: Name or folder of the dataset, for error messages.

    Raises:
        LorarecError: A column is missing, a value is null, a title is empty, an item is unknown, or an item or a user
            has several rows.
    """
    interactions, items = canonical_interactions(interactions, where), _canonical_items(items, where)
    _check_items_known(interactions, items, where)
    return interactions, items, None if users is None else _canonical_users(users, where)


def canonical_interactions(frame: pl.DataFrame, where: str | Path) -> pl.DataFrame:
    _require(frame, (USER, ITEM, TIME), f"interactions of {where}")
    if RATING not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.Float32).alias(RATING))
    try:
        frame = frame.select(pl.col(column).cast(dtype) for column, dtype in INTERACTION_SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise LorarecError(f"interactions of {where}: {str(error).splitlines()[0]}") from error
    if frame.is_empty():
        raise LorarecError(f"{where} has no interactions: check the input, or filter less")
    for column in (USER, ITEM, TIME):
        _refuse_nulls(frame[column], f"interactions of {where}")
    return frame.sort(USER, TIME, maintain_order=True)


def _canonical_items(frame: pl.DataFrame, where: str | Path) -> pl.DataFrame:
    _require(frame, (ITEM, TITLE), f"items of {where}")
    frame = frame.with_columns(pl.col(ITEM, TITLE).cast(pl.String))
    _refuse_nulls(frame[ITEM], f"items of {where}")
    empty = frame.filter(pl.col(TITLE).fill_null("").str.strip_chars() == "")
    if empty.height:
        raise LorarecError(
            f"items of {where} without a title: {empty.height}, the first is {empty[ITEM][0]!r}: "
            "give it one, or import again, dropping such items or naming them by id (keep_untitled=True)"
        )
    repeated = frame.filter(pl.col(ITEM).is_duplicated())
    if repeated.height:
        raise LorarecError(f"items of {where}: item {repeated[ITEM][0]!r} has more than one row: keep one")
    return frame.select(ITEM, TITLE, pl.exclude(ITEM, TITLE)).sort(ITEM)


def _canonical_users(frame: pl.DataFrame, where: str | Path) -> pl.DataFrame:
    """Return users with ids as text, and with nulls for NaN, which is a missing value as well."""
    _require(frame, (USER,), f"users of {where}")
    frame = frame.with_columns(pl.col(USER).cast(pl.String), selectors.float().exclude(USER).fill_nan(None))
    _refuse_nulls(frame[USER], f"users of {where}")
    repeated = frame.filter(pl.col(USER).is_duplicated())
    if repeated.height:
        raise LorarecError(f"users of {where}: user {repeated[USER][0]!r} has more than one row: keep one")
    return frame


def _check_items_known(interactions: pl.DataFrame, items: pl.DataFrame, where: str | Path) -> None:
    unknown = interactions.select(pl.col(ITEM).unique()).join(items, on=ITEM, how="anti")
    if unknown.height:
        raise LorarecError(
            f"{where}: items with interactions but without a row among the items: {unknown.height}, "
            f"the first is {unknown[ITEM].min()!r}: add them, or import again"
        )


def _require(frame: pl.DataFrame, columns: tuple[str, ...], where: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise LorarecError(f"{where}: no column {', '.join(missing)} (there are {', '.join(frame.columns)})")


def _refuse_nulls(column: pl.Series, where: str) -> None:
    if column.null_count():
        row = int(column.is_null().arg_max() or 0) + 1
        raise LorarecError(f"{where}: row {row} has no {column.name}")

"""Raw logs, which readers of files return, and the cleaning that turns them into datasets."""

import re
from dataclasses import dataclass, field

import polars as pl

from lorarec.data.columns import ITEM, TIME, TITLE, USER
from lorarec.data.fields import clean_titles
from lorarec.errors import LorarecError
from lorarec.io import JsonObject


@dataclass(frozen=True)
class RawLog:
    """The tables of a source, before anything is dropped.

    Attributes:
        name: Name of the dataset.
        origin: Description of where the data came from.
        licence: The publisher's terms of use in a few words, or None.
        interactions: The columns user_id, item_id (text), timestamp (whole seconds) and, if known, rating.
        items: The columns item_id, title (raw text or null) and further columns.
        users: The column user_id and further columns, or None.
        report: Counts of rows that were dropped while reading, by name.
    """

    name: str
    origin: str
    licence: str | None
    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame | None = None
    report: JsonObject = field(default_factory=dict)


def clean_tables(
    raw_log: RawLog, name: str, keep_untitled: bool = False, keep_unseen: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame, JsonObject]:
    """Drop duplicate rows and items without titles, and choose one title for each item.

    Args:
        raw_log: The tables.
        name: Name of the tables in error messages.
        keep_untitled: Whether items without a title are named by their id; they and their rows are dropped otherwise.
        keep_unseen: Whether titled items that nobody interacted with stay in the dataset.

    Returns:
        The interactions, sorted by user and time; the items, with a title each; and counts of what was dropped.

    Raises:
        LorarecError: No item has a title.
    """
    rows = raw_log.interactions.sort(USER, TIME, maintain_order=True)
    total = rows.height
    rows = _without_duplicates(rows)
    duplicates = total - rows.height
    items, several_titles = choose_titles(raw_log.items, rows[ITEM], keep_unseen)
    if not keep_untitled and items.join(rows, on=ITEM, how="semi")[TITLE].is_null().all():
        titled, reason = raw_log.items.drop_nulls(TITLE), "no item has a title"
        if titled.height and rows.height:
            reason += f" (the log has an item {rows[ITEM][0]!r}, and titles are of items such as {titled[ITEM][0]!r})"
        raise LorarecError(
            f"{name}: {reason}: give a table of items that has them, or name items by id (keep_untitled=True)"
        )
    rows, items, report = without_untitled(rows, items, keep_untitled)
    report = {
        "rows_read": total,
        **raw_log.report,
        "duplicate_rows_dropped": duplicates,
        "items_with_several_titles": several_titles,
        **report,
    }
    return rows, items, report


def choose_titles(items: pl.DataFrame, seen: pl.Series, keep_unseen: bool = False) -> tuple[pl.DataFrame, int]:
    """Clean the titles of items and choose the first row with a title for each item.

    Args:
        items: The columns item_id, title (raw text or null) and further columns, with any number of rows for an item.
        seen: Ids of the items that have interactions, with repetitions.
        keep_unseen: Whether items without interactions are returned as well.

    Returns:
        One row for each item, with a null title where there is none; and the number of items with several titles.
    """
    items = items.with_columns(clean_titles(items[TITLE]))
    several_titles = items.drop_nulls(TITLE).group_by(ITEM).agg(pl.col(TITLE).n_unique()).filter(pl.col(TITLE) > 1)
    items = items.sort(pl.col(TITLE).is_null(), maintain_order=True).unique(ITEM, keep="first", maintain_order=True)
    seen_items = pl.DataFrame({ITEM: seen.unique()})
    items = items.join(seen_items, on=ITEM, how="full" if keep_unseen else "right", coalesce=True)
    return items, several_titles.height


def without_untitled(
    rows: pl.DataFrame, items: pl.DataFrame, keep_untitled: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame, JsonObject]:
    """Drop items without a title and their interactions, or name them by their id.

    Returns:
        The interactions, the items, and counts of what was dropped.
    """
    untitled = items.filter(pl.col(TITLE).is_null()).join(rows, on=ITEM, how="semi")
    before = rows.height
    if keep_untitled:
        items = items.with_columns(pl.coalesce(TITLE, ITEM))
    else:
        items = items.filter(pl.col(TITLE).is_not_null())
        if untitled.height:
            rows = rows.join(untitled, on=ITEM, how="anti", maintain_order="left")
    report = {
        "untitled_items": untitled.height,
        "untitled_items_named_by_id": keep_untitled,
        "untitled_rows_dropped": before - rows.height,
    }
    return rows, items, report


def _without_duplicates(rows: pl.DataFrame) -> pl.DataFrame:
    """Drop repetitions of (user, item, timestamp) from rows that are sorted by user and time."""
    same = (pl.col(USER) == pl.col(USER).shift()) & (pl.col(TIME) == pl.col(TIME).shift())
    tied = rows.select(same.fill_null(False).alias("tied")).to_series()
    if not tied.any():
        return rows
    groups = rows.select(ITEM, tied.not_().cum_sum().alias("moment")).with_row_index()
    in_ties = groups.filter(pl.len().over("moment") > 1)
    repeats = in_ties.filter(~pl.struct(ITEM, "moment").is_first_distinct())["index"]
    if repeats.is_empty():
        return rows
    keep = pl.Series(pl.repeat(True, rows.height, eager=True)).scatter(repeats, False)
    return rows.filter(keep)


def folder_name(text: str) -> str:
    """Return a name for a folder, of lower case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "dataset"

"""Conversion of raw logs to datasets: duplicates and untitled items are dropped and counted, filters are applied."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import polars as pl

from lorarec.data.columns import ITEM, TIME, TITLE, USER
from lorarec.data.dataset import Dataset
from lorarec.data.fields import clean_titles
from lorarec.data.filters import k_core as core_of
from lorarec.data.filters import remove_overlap
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


def assemble(
    source: RawLog,
    *,
    name: str | None = None,
    keep_untitled: bool = False,
    keep_unseen: bool = False,
    without: Sequence[Dataset] = (),
    by: Sequence[str] = ("items",),
    k_core: int = 0,
) -> Dataset:
    """Make a dataset from a raw log; what is dropped is counted in `info["import"]`.

    Args:
        source: The raw log.
        name: A name for the dataset instead of that of the source.
        keep_untitled: Name items without a title by their id instead of dropping them with their interactions.
        keep_unseen: Keep titled items that nobody interacted with (until a k-core drops them).
        without: Datasets whose users, items, interactions or titles are removed (see `remove_overlap`).
        by: What is compared with these datasets: any of "users", "items", "interactions" and "titles".
        k_core: Minimum number of interactions of a user and of an item, applied last; 0 or 1 filters nothing.

    Raises:
        LorarecError: Nothing is left.
    """
    name = name or source.name
    rows = source.interactions.sort(USER, TIME, maintain_order=True)
    total = rows.height
    rows = _without_duplicates(rows)
    duplicates = total - rows.height

    items = source.items.with_columns(clean_titles(source.items[TITLE]))
    several_titles = items.drop_nulls(TITLE).group_by(ITEM).agg(pl.col(TITLE).n_unique()).filter(pl.col(TITLE) > 1)
    items = items.sort(pl.col(TITLE).is_null(), maintain_order=True).unique(ITEM, keep="first", maintain_order=True)
    seen = rows.select(pl.col(ITEM).unique())
    items = items.join(seen, on=ITEM, how="full" if keep_unseen else "right", coalesce=True)
    untitled = items.filter(pl.col(TITLE).is_null()).join(seen, on=ITEM, how="semi")
    if keep_untitled:
        items = items.with_columns(pl.coalesce(TITLE, ITEM))
        untitled_rows = 0
    else:
        if untitled.height == seen.height:
            raise LorarecError(
                f"{name}: no item has a title: give a table of items that has them, "
                "or name items by id (keep_untitled=True)"
            )
        items = items.filter(pl.col(TITLE).is_not_null())
        before = rows.height
        if untitled.height:
            rows = rows.join(untitled, on=ITEM, how="anti", maintain_order="left")
        untitled_rows = before - rows.height

    report = {
        "rows_read": total,
        **source.report,
        "duplicate_rows_dropped": duplicates,
        "items_with_several_titles": several_titles.height,
        "untitled_items": untitled.height,
        "untitled_items_named_by_id": keep_untitled,
        "untitled_rows_dropped": untitled_rows,
    }
    info = {"source": source.origin, "licence": source.licence}
    dataset = Dataset.from_frames(name, rows, items, source.users, info)
    for other, what in product(without, by):
        dataset = remove_overlap(dataset, other, what)
    if k_core > 1:
        dataset = core_of(dataset, k_core)
    lengths = dataset.interactions.group_by(USER).len()["len"]
    report["users_below_three_interactions"] = int((lengths < 3).sum())
    return replace(dataset, info={**dataset.info, "import": report})


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

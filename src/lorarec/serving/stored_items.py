"""What calls have said of items, in the database and in a dataset."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from lorarec.data import ITEM, TITLE, Dataset
from lorarec.serving.migrations import ITEMS


@dataclass(frozen=True)
class StoredItem:
    """What calls have said of an item.

    Attributes:
        item_id: Id of the item.
        title: Title of the item; None for that of the dataset.
        columns: Values of further columns; those that are missing are as in the dataset, or null for an added item.
        withdrawn: Whether the item is not recommended any more.
    """

    item_id: str
    title: str | None
    columns: Mapping[str, Any]
    withdrawn: bool


def with_items(dataset: Dataset, stored: Mapping[str, StoredItem]) -> Dataset:
    """Return a dataset with items as they are stored, in the order of ids; its fingerprint stays as it was."""
    if not stored:
        return dataset
    former = dataset.items.filter(pl.col(ITEM).is_in(list(stored)))
    of_item = {row[ITEM]: row for row in former.iter_rows(named=True)}
    rows = []
    for item, each in stored.items():
        row = {**of_item.get(item, dict.fromkeys(dataset.items.columns)), ITEM: item, **each.columns}
        rows.append(row if each.title is None else row | {TITLE: each.title})
    changed = pl.DataFrame(rows, dataset.items.schema, strict=False)
    others = dataset.items.filter(~pl.col(ITEM).is_in(list(stored)))
    return replace(dataset, items=pl.concat([others, changed]).sort(ITEM))


def read_items(connection: Connection, after: int) -> tuple[int, dict[str, StoredItem]]:
    """Return the latest revision, and the items that were stored after a given one."""
    latest = connection.scalar(select(func.max(ITEMS.c.revision))) or 0
    if latest <= after:
        return latest, {}
    columns = (ITEMS.c.item_id, ITEMS.c.title, ITEMS.c.columns, ITEMS.c.withdrawn)
    rows = connection.execute(select(*columns).where(ITEMS.c.revision > after)).tuples()
    return latest, {
        item: StoredItem(item, title, json.loads(values), bool(withdrawn)) for item, title, values, withdrawn in rows
    }


def row_of(item: StoredItem, revision: int) -> dict[str, Any]:
    """Return the row of an item in the table of items."""
    return {
        "item_id": item.item_id,
        "title": item.title,
        "columns": json.dumps(dict(item.columns)),
        "withdrawn": item.withdrawn,
        "revision": revision,
    }

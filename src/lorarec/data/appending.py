"""New interactions and items that are appended to a dataset."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

import polars as pl

from lorarec.data.columns import ITEM, TIME, TITLE, USER
from lorarec.data.fields import clean_ids
from lorarec.data.raw_log import RawLog, choose_titles, without_untitled
from lorarec.data.sources.frames import AppendOptions, any_table, two_tables
from lorarec.data.sources.table import Columns, raw_log, refuse_similar_ids, refuse_unseen_without_items
from lorarec.data.tables import Ids, TableFormat
from lorarec.data.times import EARLIEST_MOMENT
from lorarec.data.validation import canonical_interactions
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from lorarec.data.dataset import Dataset

#: The key of `Dataset.info` with a list of records, one for each time that something was appended.
UPDATES = "updates"
_COLUMNS = ("user", "item", "time", "rating", "title", "items_id")
_KEPT = ("keep_untitled", "keep_unseen")


class AppendMixin:
    """The appending of interactions and items to a dataset."""

    def append(self, log: Any, items: Any = None, **options: Unpack[AppendOptions]) -> Self:
        """Return a dataset with further interactions, and with the items of theirs that are new.

        Without filters, the result is that of an import of the old and the new rows as one log. Interactions that are
        there already are dropped and counted, so the same rows may be given twice. Interactions that are earlier than
        others of their user take their place in time. Items that are there already keep their titles and texts. New
        items have to have a title, in `items` or in the log; those without are dropped with their interactions and
        counted, unless `keep_untitled` is set. A k-core or another filter of the dataset is not applied again.

        `info["updates"]` has a record of each append: the fingerprint of the dataset before (`previous`), its last
        timestamp (`previous_until`), and what was added and dropped.

        Args:
            log: The interactions: a data frame of polars or pandas, a table of Arrow, or a `datasets.Dataset`.
            items: The items with their titles, in one of the same forms.
            options: The options of `Dataset.from_polars` that say how tables are read. With `order="file"` the
                interactions follow those of the dataset, which must have positions in place of times. With
                `ids="trimmed"` or `"numbers"`, ids that are those of the dataset are written as there.

        Raises:
            LorarecError: A column is missing or a value cannot be read; times are mixed with positions, or positions of
                a user begin again; an id of a user or an item differs from one of the dataset only in its notation;
                `keep_unseen` has no effect without `items`; or nothing is new.

        Examples:
            >>> import polars as pl
            >>> from lorarec import Dataset
            >>> log = {"user_id": [1, 1], "item_id": [7, 8], "timestamp": [0, 1], "title": ["Chair", "Lamp"]}
            >>> shop = Dataset.from_polars(pl.DataFrame(log))
            >>> new = pl.DataFrame({"user_id": [1, 2], "item_id": [9, 7], "timestamp": [2, 2]})
            >>> grown = shop.append(new, pl.DataFrame({"item_id": [9], "title": ["Desk"]}))
            >>> grown.history("1"), grown.titles["9"]
            (['7', '8', '9'], 'Desk')
            >>> grown.info["updates"][0]["previous"] == shop.fingerprint
            True
        """
        dataset = cast("Dataset", self)
        given = cast(Mapping[str, Any], options)
        columns = Columns(**{name: given[name] for name in _COLUMNS if name in given})
        table_format = TableFormat(**{name: each for name, each in given.items() if name not in (*_COLUMNS, *_KEPT)})
        refuse_unseen_without_items(given.get("keep_unseen", False), items)
        log_table, items_table = two_tables(any_table, log, items)
        raw = raw_log(
            log_table, items_table, columns, table_format, name=dataset.name, origin=log_table.kind, licence=None
        )
        kept = {name: given[name] for name in _KEPT if name in given}
        return cast(Self, append_raw_log(dataset, raw, table_format, **kept))


def append_raw_log(
    dataset: "Dataset",
    raw_log: RawLog,
    table_format: TableFormat,
    *,
    keep_untitled: bool = False,
    keep_unseen: bool = False,
) -> "Dataset":
    """Return a dataset with the interactions and the new items of a raw log; see `Dataset.append`.

    Args:
        dataset: The dataset.
        raw_log: The raw log.
        table_format: Format that the raw log was read with; its `order` and `ids` matter here.
        keep_untitled: Whether new items without a title are named by their id.
        keep_unseen: Whether new titled items that nobody interacted with are added as well.

    Raises:
        LorarecError: As for `Dataset.append`.
    """
    old, known = dataset.interactions, dataset.items
    last = _last_time(old)
    raw_log = _with_known_ids(raw_log, dataset, table_format.ids)
    rows = canonical_interactions(raw_log.interactions, raw_log.origin)
    _refuse_other_times(dataset, rows, raw_log.origin)
    if table_format.order == "file":
        rows = rows.with_columns(pl.col(TIME) + last + 1)
    read = rows.height
    rows = rows.unique([USER, ITEM, TIME], keep="first", maintain_order=True)
    rows = rows.join(old, on=[USER, ITEM, TIME], how="anti", maintain_order="left")
    duplicates = read - rows.height
    if last < EARLIEST_MOMENT:
        _refuse_earlier_positions(dataset, rows, raw_log.origin)

    is_known = pl.col(ITEM).is_in(known[ITEM].implode())
    of_new_items = rows.filter(~is_known)
    items, several_titles = choose_titles(raw_log.items.filter(~is_known), of_new_items[ITEM], keep_unseen)
    _, items, report = without_untitled(of_new_items, items, keep_untitled)
    all_items = _with_new_rows(known, items, ITEM, dataset.name)
    rows = rows.join(all_items, on=ITEM, how="semi", maintain_order="left")
    if rows.is_empty() and items.is_empty():
        raise LorarecError(
            f"{raw_log.origin} has nothing new: its interactions ({read:,}) are in {dataset.name} already, or are of "
            "items without a title"
        )
    record = {
        "previous": dataset.fingerprint,
        "previous_until": last,
        "source": raw_log.origin,
        "added": {
            "users": rows.join(old, on=USER, how="anti")[USER].n_unique(),
            "items": items.height,
            "interactions": rows.height,
        },
        "rows_read": read,
        **raw_log.report,
        "duplicate_rows_dropped": duplicates,
        "late_interactions": int((rows[TIME] < last).sum()),
        "items_with_several_titles": several_titles,
        "known_items_with_other_titles": _other_titles(raw_log.items, known),
        **report,
    }
    info = {
        **dataset.info,
        "filters": [*dataset.info.get("filters", []), f"appended {rows.height:,} interactions of {raw_log.origin}"],
        UPDATES: [*dataset.info.get(UPDATES, []), record],
    }
    users = dataset.users
    if raw_log.users is not None:
        users = raw_log.users if users is None else _with_new_rows(users, raw_log.users, USER, dataset.name)
    return dataset.from_frames(dataset.name, pl.concat([old, rows]), all_items, users, info)


def _last_time(interactions: pl.DataFrame) -> int:
    return int(interactions[TIME].to_numpy().max())


def _with_known_ids(raw_log: RawLog, dataset: "Dataset", ids: Ids | None) -> RawLog:
    """Return a raw log with the ids of a dataset, as they are written there, where they are the same under an option.

    Raises:
        LorarecError: The option is None and some ids are the same only under another one, or two ids of the dataset are
            the same under the option.
    """
    interactions, items, users = raw_log.interactions, raw_log.items, raw_log.users
    for column, known in ((USER, dataset.interactions[USER].unique()), (ITEM, dataset.items[ITEM])):
        if ids is None:
            refuse_similar_ids(interactions[column], raw_log.origin, known, dataset.name)
        elif ids != "as-written":
            spellings = pl.DataFrame({"read": clean_ids(known, ids), "written": known})
            _refuse_ids_that_become_one(spellings, column, ids, dataset.name)
            written = pl.col(column).replace(spellings["read"], spellings["written"])
            interactions = interactions.with_columns(written)
            items = items.with_columns(written) if column == ITEM else items
            users = users.with_columns(written) if column == USER and users is not None else users
    return replace(raw_log, interactions=interactions, items=items, users=users)


def _refuse_ids_that_become_one(spellings: pl.DataFrame, column: str, ids: Ids, name: str) -> None:
    repeated = spellings.filter(pl.col("read").is_duplicated()).sort("read", "written")
    if repeated.height:
        first, second = repeated["written"][:2]
        raise LorarecError(
            f'{name} has {column} {first!r} and {second!r}, which ids="{ids}" would read as one: write the ids as '
            'they are in the dataset, and use ids="as-written"'
        )


def _refuse_other_times(dataset: "Dataset", rows: pl.DataFrame, origin: str) -> None:
    """Refuse a log with positions for a dataset with times, and the other way round.

    Raises:
        LorarecError: It is one.
    """
    kinds = ["positions" if _last_time(each) < EARLIEST_MOMENT else "times" for each in (dataset.interactions, rows)]
    if kinds[0] != kinds[1]:
        raise LorarecError(
            f"{origin} has {kinds[1]} and {dataset.name} has {kinds[0]}, which cannot be ordered together: append a "
            f"log with {kinds[0]}"
        )


def _refuse_earlier_positions(dataset: "Dataset", rows: pl.DataFrame, origin: str) -> None:
    """Refuse positions of a user that are not after those of the dataset, since they may be counted anew in each log.

    Raises:
        LorarecError: There is one.
    """
    ends = dataset.interactions.group_by(USER).agg(pl.col(TIME).max().alias("end"))
    early = rows.join(ends, on=USER, maintain_order="left").filter(pl.col(TIME) <= pl.col("end"))
    if early.height:
        row = early.row(0, named=True)
        raise LorarecError(
            f"{origin}: user {row[USER]!r} chose item {row[ITEM]!r} at position {row[TIME]}, but the dataset has that "
            f'user up to position {row["end"]}: continue the positions, or use order="file" for a log in order'
        )


def _other_titles(items: pl.DataFrame, known: pl.DataFrame) -> int:
    """Return how many items that are known have another title in a table of items."""
    again = items.join(known.select(ITEM, pl.col(TITLE).alias("known")), on=ITEM)
    again, _ = choose_titles(again, again[ITEM])
    return again.filter(pl.col(TITLE) != pl.col("known")).height


def _with_new_rows(old: pl.DataFrame, new: pl.DataFrame, key: str, name: str) -> pl.DataFrame:
    """Return a table with the rows of another one whose keys it does not have, in the types of its columns.

    Raises:
        LorarecError: A value of the new rows cannot be converted to the type of its column.
    """
    new = new.join(old, on=key, how="anti", maintain_order="left")
    for column in (each for each in new.columns if each in old.columns):
        try:
            new = new.with_columns(pl.col(column).cast(old.schema[column]))
        except pl.exceptions.PolarsError as error:
            raise LorarecError(
                f"column {column!r} of {name} has type {old.schema[column]}, which new values cannot be converted to: "
                f"{str(error).splitlines()[0]}"
            ) from error
    return pl.concat([old, new], how="diagonal")

"""The interactions of a dataset in the database: stored once, and extended when the dataset has grown."""

import logging

import polars as pl
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.sql import Select

from lorarec.data import ITEM, TIME, USER, Dataset
from lorarec.errors import LorarecError
from lorarec.serving.migrations import DELETED_USERS, EVENTS, SOURCE, id_hash, stored_id

_CHUNK = 10_000
_SCHEMA = {USER: pl.String, ITEM: pl.String, TIME: pl.Int64}
#: Column that tells equal interactions apart: 0 for the first, 1 for the second.
_REPEAT = "repeat"

logger = logging.getLogger(__name__)


def store_dataset(connection: Connection, dataset: Dataset, display_url: str) -> None:
    """Store the interactions of a dataset in an empty database, or those by which the dataset has grown.

    A dataset has grown if it has all interactions with which the database was filled. Those of its interactions that
    are neither in the database nor of a deleted user are added; an event with the same user, item and time is taken
    for the same interaction. Events stay as they are.

    Args:
        connection: Connection with a transaction that excludes other processes that start, on the latest schema.
        dataset: The dataset.
        display_url: URL of the database without its password, for error messages.

    Raises:
        LorarecError: If the database was filled from another dataset.
    """
    source = connection.execute(select(SOURCE.c.dataset, SOURCE.c.last_id)).one_or_none()
    if source is None:
        _insert(connection, _dataset_rows(dataset))
        last_id = connection.scalar(select(func.max(EVENTS.c.id))) or 0
        connection.execute(insert(SOURCE), {"only": 1, "dataset": dataset.fingerprint, "last_id": last_id})
    elif source.dataset != dataset.fingerprint:
        _extend(connection, dataset, source.last_id, display_url)
        connection.execute(update(SOURCE), {"dataset": dataset.fingerprint})
    elif source.last_id is None:  # the schema of an earlier version, which stored the dataset's interactions first
        first = select(EVENTS.c.id).order_by(EVENTS.c.id).limit(dataset.interactions.height).subquery()
        last_id = connection.scalar(select(func.max(first.c.id))) or 0
        connection.execute(update(SOURCE), {"last_id": last_id})


def _extend(connection: Connection, dataset: Dataset, last_id: int | None, display_url: str) -> None:
    """Store the interactions by which a dataset has grown.

    Raises:
        LorarecError: If the dataset lacks an interaction with which the database was filled.
    """
    other = f"database {display_url} holds the histories of another dataset than {dataset.name} ({dataset.fingerprint})"
    if last_id is None:
        raise LorarecError(
            f"{other}: if the dataset has grown, start once with the former one, or give another database (option db)"
        )
    rows = _numbered(_dataset_rows(dataset))
    stored = select(EVENTS.c[USER], EVENTS.c[ITEM], EVENTS.c[TIME])
    missing = _numbered(_read(connection, stored.where(EVENTS.c.id <= last_id))).join(rows, on=rows.columns, how="anti")
    if missing.height:
        user, item, time, _ = missing.row(0)
        raise LorarecError(
            f"{other}: the dataset lacks {missing.height} of its interactions, such as that of user {user!r} with item "
            f"{item!r} at {time}: give another database (option db)"
        )
    new = rows.join(_numbered(_read(connection, stored)), on=rows.columns, how="anti", maintain_order="left")
    deleted = set(connection.scalars(select(DELETED_USERS.c.user_hash)))
    users = [user for user in new[USER].unique() if deleted and id_hash(user) in deleted]
    added = new.filter(~pl.col(USER).is_in(users)).drop(_REPEAT)
    _insert(connection, added)
    logger.warning("dataset %s has grown: %d interactions were added to the database", dataset.name, added.height)


def _dataset_rows(dataset: Dataset) -> pl.DataFrame:
    """Return the interactions of a dataset with the ids of users as the database stores them."""
    rows = dataset.interactions.select(pl.col(name).cast(kind) for name, kind in _SCHEMA.items())
    changed = {user: new for user in rows[USER].unique() if (new := stored_id(user)) != user}
    return rows.with_columns(pl.col(USER).replace(changed)) if changed else rows


def _numbered(rows: pl.DataFrame) -> pl.DataFrame:
    """Number equal rows, so that a join tells them apart."""
    return rows.with_columns(pl.int_range(pl.len()).over(list(_SCHEMA)).alias(_REPEAT))


def _read(connection: Connection, query: "Select[tuple[str, str, int]]") -> pl.DataFrame:
    parts = connection.execute(query, execution_options={"yield_per": _CHUNK}).partitions()
    frames = [pl.DataFrame([tuple(row) for row in part], _SCHEMA, orient="row") for part in parts]
    return pl.concat([pl.DataFrame(schema=_SCHEMA), *frames])


def _insert(connection: Connection, rows: pl.DataFrame) -> None:
    for chunk in rows.iter_slices(_CHUNK):
        connection.execute(insert(EVENTS), chunk.to_dicts())

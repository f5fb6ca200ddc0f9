"""Histories of users in SQLite, PostgreSQL or another database that SQLAlchemy supports."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from lorarec.data import ITEM, TIME, USER, Dataset
from lorarec.errors import LorarecError
from lorarec.personal import UserHistory
from lorarec.serving.database import open_engine, open_start_engine
from lorarec.serving.migrations import EVENTS, PROBE, SOURCE, upgrade

_CHUNK = 10_000
#: Seconds for which a database counts as full after it could not store events, unless it stores later ones.
FULL_SECONDS = 10.0


class DatabaseUnreachable(Exception):
    """The database does not respond."""


class DatabaseUnusable(Exception):
    """The database responds, but histories cannot be read or events cannot be stored."""


def _is_full(error: DBAPIError) -> bool:
    sqlite, postgres = getattr(error.orig, "sqlite_errorname", None), getattr(error.orig, "sqlstate", None)
    return sqlite == "SQLITE_FULL" or postgres == "53100"


def _first_line(error: SQLAlchemyError) -> str:
    return str(error).splitlines()[0]


@dataclass(frozen=True)
class Event:
    """An interaction of a user with an item.

    Attributes:
        user_id: Id of the user.
        item_id: Id of the item.
        timestamp: Time in the unit of the dataset; None for the current time, or the time of the user's last event if
            that is later.
        event_id: Id that the client gives the event; later events of the user with the same id are duplicates.
    """

    user_id: str
    item_id: str
    timestamp: int | None = None
    event_id: str | None = None


class Histories:
    """Interactions of users in time order: those of a dataset and the events after them. Thread-safe.

    Args:
        url: Database URL, as in `postgresql://user:password@host/name` or `sqlite:///file`.

    Raises:
        LorarecError: If the kind of database is unknown, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = open_engine(url)
        self._display_url = self._engine.url.render_as_string(hide_password=True)
        self._full_since: float | None = None

    def fill(self, dataset: Dataset) -> None:
        """Store the interactions of a dataset, either all or none, unless the database already holds them.

        Tables of earlier versions are upgraded. Several services may call this at the same time.

        Raises:
            LorarecError: If the database cannot be used, or holds the histories of another dataset.
        """
        engine = open_start_engine(self._url)
        try:
            with engine.begin() as connection:
                upgrade(connection, self._display_url)
                stored = connection.scalar(select(SOURCE.c.dataset))
                if stored is None:
                    connection.execute(insert(SOURCE), {"only": 1, "dataset": dataset.fingerprint})
                    columns = dataset.interactions.select(USER, ITEM, TIME)
                    for chunk in columns.iter_slices(_CHUNK):
                        connection.execute(insert(EVENTS), chunk.to_dicts())
                elif stored != dataset.fingerprint:
                    raise LorarecError(
                        f"database {self._display_url} holds the histories of another dataset ({stored}, not "
                        f"{dataset.fingerprint} of {dataset.name}): give another database (option db)"
                    )
        except SQLAlchemyError as error:
            raise LorarecError(f"database {self._display_url} cannot be used: {_first_line(error)}") from error
        finally:
            engine.dispose()

    def history(self, user: str, latest: int) -> list[str]:
        """Return at most `latest` item ids of a user, oldest first; empty for an unknown user.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        return list(self.user_history(user, latest).items)

    def user_history(self, user: str, latest: int) -> UserHistory:
        """Return at most `latest` items of a user with their times, oldest first; empty for an unknown user.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        query = (
            select(EVENTS.c[ITEM], EVENTS.c[TIME])
            .where(EVENTS.c[USER] == user)
            .order_by(EVENTS.c[TIME].desc(), EVENTS.c.id.desc())
            .limit(latest)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).tuples().all()[::-1]
        return UserHistory(user, [item for item, _ in rows], [time for _, time in rows])

    def append(self, events: Sequence[Event]) -> int:
        """Store events, either all or none, and return the number of new ones.

        Raises:
            SQLAlchemyError: If the database cannot be used. The events may have been stored or not; it is safe to
                append those with an event id again.
        """
        try:
            stored = self._append(events)
        except DBAPIError as error:
            if _is_full(error):
                self._full_since = time.monotonic()
            raise
        self._full_since = None
        return stored

    def _append(self, events: Sequence[Event]) -> int:
        try:
            with self._engine.begin() as connection:
                return _append(connection, events)
        except IntegrityError:  # another client has stored one of them since `_append` read the known ids
            with self._engine.begin() as connection:
                return _append(connection, events)

    def check(self) -> None:
        """Check that the tables can be read and a row can be inserted; the insertion is rolled back.

        Raises:
            DatabaseUnreachable: If the database does not respond.
            DatabaseUnusable: If it responds, but histories cannot be read or events cannot be stored.
        """
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise DatabaseUnreachable(_first_line(error)) from error
        with connection:
            try:
                connection.execute(select(EVENTS.c.id).limit(1))
                connection.execute(select(SOURCE.c.dataset))
                connection.execute(insert(PROBE), {"moment": int(time.time())})
                connection.rollback()
            except SQLAlchemyError as error:
                raise (DatabaseUnreachable if connection.invalidated else DatabaseUnusable)(
                    _first_line(error)
                ) from error
        # There may be room for one row where there was none for the latest events.
        if self._full_since is not None and time.monotonic() - self._full_since < FULL_SECONDS:
            raise DatabaseUnusable("it is full")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _append(connection: Connection, events: Sequence[Event]) -> int:
    users = sorted({event.user_id for event in events})
    event_ids = [event.event_id for event in events if event.event_id is not None]
    of_users = EVENTS.c[USER].in_(users)
    duplicates = select(EVENTS.c[USER], EVENTS.c.event_id).where(of_users, EVENTS.c.event_id.in_(event_ids))
    known = {(user, event_id) for user, event_id in connection.execute(duplicates)} if event_ids else set()
    last_times = select(EVENTS.c[USER], func.max(EVENTS.c[TIME])).where(of_users).group_by(EVENTS.c[USER])
    latest: dict[str, int] = dict(connection.execute(last_times).tuples().all())
    rows = []
    for event in events:
        key = (event.user_id, event.event_id)
        if key in known:
            continue
        if event.event_id is not None:
            known.add(key)
        last = latest.get(event.user_id, 0)
        timestamp = max(int(time.time()), last) if event.timestamp is None else event.timestamp
        latest[event.user_id] = max(last, timestamp)
        rows.append({USER: event.user_id, ITEM: event.item_id, TIME: timestamp, "event_id": event.event_id})
    if rows:
        connection.execute(insert(EVENTS), rows)
    return len(rows)

"""Histories of users in a database: SQLite, PostgreSQL or whatever else SQLAlchemy speaks to."""

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
#: Seconds for which a database that had no room for events counts as full, unless it stores later ones.
FULL_SECONDS = 10.0


class DatabaseUnreachable(Exception):
    """The database does not answer."""


class DatabaseUnusable(Exception):
    """The database answers, but not as the service needs it."""


def _is_full(error: DBAPIError) -> bool:
    sqlite, postgres = getattr(error.orig, "sqlite_errorname", None), getattr(error.orig, "sqlstate", None)
    return sqlite == "SQLITE_FULL" or postgres == "53100"


def _first_line(error: SQLAlchemyError) -> str:
    return str(error).splitlines()[0]


@dataclass(frozen=True)
class Event:
    """One interaction.

    Attributes:
        timestamp: as in the dataset; None is now, and never before what the user did last.
        event_id: the client's own name for it: a second event of the user with it is the same event.
    """

    user_id: str
    item_id: str
    timestamp: int | None = None
    event_id: str | None = None


class Histories:
    """Who chose what, in time order; filled from a dataset at first, then appended to. Safe for many threads.

    Args:
        url: of a database, as in `postgresql://user:password@host/name` or `sqlite:///file`.

    Raises:
        LorarecError: no such kind of database, or a driver is missing.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = open_engine(url)
        self._shown = self._engine.url.render_as_string(hide_password=True)
        self._full_since: float | None = None

    def fill(self, dataset: Dataset) -> None:
        """Store the interactions of the dataset in an empty database, all or none; one of this dataset stays as it is.

        Tables of an earlier lorarec are brought up to date. Several services may start together.

        Raises:
            LorarecError: the database cannot be reached, or holds the histories of another dataset.
        """
        engine = open_start_engine(self._url)
        try:
            with engine.begin() as connection:
                upgrade(connection, self._shown)
                found = connection.scalar(select(SOURCE.c.dataset))
                if found is None:
                    connection.execute(insert(SOURCE), {"only": 1, "dataset": dataset.fingerprint})
                    columns = dataset.interactions.select(USER, ITEM, TIME)
                    for chunk in columns.iter_slices(_CHUNK):
                        connection.execute(insert(EVENTS), chunk.to_dicts())
                elif found != dataset.fingerprint:
                    raise LorarecError(
                        f"database {self._shown} holds the histories of another dataset ({found}, not "
                        f"{dataset.fingerprint} of {dataset.name}): give another --db"
                    )
        except SQLAlchemyError as error:
            raise LorarecError(f"database {self._shown} cannot be used: {_first_line(error)}") from error
        finally:
            engine.dispose()

    def history(self, user: str, latest: int) -> list[str]:
        """At most `latest` item ids of a user, oldest first; empty for an unknown one.

        Raises:
            SQLAlchemyError: the database cannot be reached.
        """
        return list(self.past(user, latest).items)

    def past(self, user: str, latest: int) -> UserHistory:
        """The same with times.

        Raises:
            SQLAlchemyError: the database cannot be reached.
        """
        rows = (
            select(EVENTS.c[ITEM], EVENTS.c[TIME])
            .where(EVENTS.c[USER] == user)
            .order_by(EVENTS.c[TIME].desc(), EVENTS.c.id.desc())
            .limit(latest)
        )
        with self._engine.connect() as connection:
            found = connection.execute(rows).tuples().all()[::-1]
        return UserHistory(user, [item for item, _ in found], [time for _, time in found])

    def append(self, events: Sequence[Event]) -> int:
        """Store events, all or none, and return how many were new.

        Raises:
            SQLAlchemyError: the database cannot be reached; nothing tells whether the events are stored, and sending
                those with an event id again is safe.
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
        except IntegrityError:  # another client stored one of them between the look and the insertion
            with self._engine.begin() as connection:
                return _append(connection, events)

    def check(self) -> None:
        """Whether the tables are there and a row can be written; nothing is.

        Raises:
            Unreachable: the database does not answer.
            Unusable: it answers, but histories cannot be read or events not stored.
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
        # One row may still fit where the latest events did not.
        if self._full_since is not None and time.monotonic() - self._full_since < FULL_SECONDS:
            raise DatabaseUnusable("it is full")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _append(connection: Connection, events: Sequence[Event]) -> int:
    users = sorted({event.user_id for event in events})
    named = [event.event_id for event in events if event.event_id is not None]
    theirs = EVENTS.c[USER].in_(users)
    seen = select(EVENTS.c[USER], EVENTS.c.event_id).where(theirs, EVENTS.c.event_id.in_(named))
    known = {(user, event_id) for user, event_id in connection.execute(seen)} if named else set()
    ends = select(EVENTS.c[USER], func.max(EVENTS.c[TIME])).where(theirs).group_by(EVENTS.c[USER])
    latest: dict[str, int] = dict(connection.execute(ends).tuples().all())
    rows = []
    for event in events:
        key = (event.user_id, event.event_id)
        if key in known:
            continue
        if event.event_id is not None:
            known.add(key)
        last = latest.get(event.user_id, 0)
        moment = max(int(time.time()), last) if event.timestamp is None else event.timestamp
        latest[event.user_id] = max(last, moment)
        rows.append({USER: event.user_id, ITEM: event.item_id, TIME: moment, "event_id": event.event_id})
    if rows:
        connection.execute(insert(EVENTS), rows)
    return len(rows)

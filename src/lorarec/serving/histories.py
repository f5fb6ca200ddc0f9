"""Histories of users in SQLite, PostgreSQL or another database that SQLAlchemy supports."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sqlalchemy import delete, func, insert, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from lorarec.data import ITEM, TIME, USER, Dataset
from lorarec.errors import LorarecError
from lorarec.personal import UserHistory
from lorarec.serving.database import lock_users, open_engine, open_start_engine
from lorarec.serving.dataset_rows import store_dataset
from lorarec.serving.migrations import DELETED_USERS, EVENTS, PROBE, SOURCE, id_hash, stored_id, upgrade

#: Number of times that events are appended anew because a client of another process has stored one of them meanwhile.
#: Where `lock_users` locks users, only processes of earlier versions can do that.
ATTEMPTS = 10
#: Seconds for which a database counts as full after it could not store events, unless it stores later ones.
FULL_SECONDS = 10.0


#: Maximum number of values that one statement compares with.
MAX_PARAMETERS = 10_000


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


@dataclass(frozen=True)
class StoredEvent:
    """An interaction of a user as the database holds it.

    Attributes:
        item_id: Id of the item.
        timestamp: Time in the unit of the dataset.
        event_id: Id that the client gave the event, or its hash if it is long (see `stored_id`); None if it has none,
            as interactions of the dataset.
    """

    item_id: str
    timestamp: int
    event_id: str | None


class EventConflict(Exception):
    """An event has the id of another event of the user, but another item or time.

    Args:
        index: Index of the event in its request.
        stored: The event with the same id.
    """

    def __init__(self, index: int, stored: StoredEvent) -> None:
        super().__init__(f"event {index} has the id of another event")
        self.index = index
        self.stored = stored


class Histories:
    """Interactions of users in time order: those of a dataset and the events after them. Thread-safe.

    Args:
        url: Database URL, as in `postgresql://user:password@host/name` or `sqlite:///file`.

    Attributes:
        engine: Connections to the database.

    Raises:
        LorarecError: If the kind of database is unknown, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.engine = open_engine(url)
        self._display_url = self.engine.url.render_as_string(hide_password=True)
        self._full_since: float | None = None
        self._dataset_users: Sequence[str] = ()

    def fill(self, dataset: Dataset) -> None:
        """Store the interactions of a dataset, either all or none, unless the database already holds them.

        Tables of earlier versions are upgraded. If the dataset has grown since the database was filled, its new
        interactions are added (see `store_dataset`). Several services may call this at the same time.

        Raises:
            LorarecError: If the database cannot be used, or was filled from another dataset.
        """
        self._dataset_users = dataset.interactions[USER].unique(maintain_order=True).to_list()
        engine = open_start_engine(self._url)
        try:
            with engine.begin() as connection:
                upgrade(connection, self._display_url)
                store_dataset(connection, dataset, self._display_url)
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
            .where(EVENTS.c[USER] == stored_id(user))
            .order_by(EVENTS.c[TIME].desc(), EVENTS.c.id.desc())
            .limit(latest)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).tuples().all()[::-1]
        return UserHistory(user, [item for item, _ in rows], [time for _, time in rows])

    def append(self, events: Sequence[Event]) -> int:
        """Store events, either all or none, and return the number of new ones.

        Raises:
            EventConflict: If an event has the id of another event of the user, but another item or time.
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

    def _append(self, events: Sequence[Event], attempts: int = ATTEMPTS) -> int:
        try:
            with self.engine.begin() as connection:
                lock_users(connection, {stored_id(event.user_id) for event in events})
                return _append(connection, events)
        except IntegrityError:
            if attempts == 1:
                raise
            return self._append(events, attempts - 1)

    def events(self, user: str) -> list[StoredEvent]:
        """Return all that is stored of a user, oldest first; empty for an unknown user.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        query = (
            select(EVENTS.c[ITEM], EVENTS.c[TIME], EVENTS.c.event_id)
            .where(EVENTS.c[USER] == stored_id(user))
            .order_by(EVENTS.c[TIME], EVENTS.c.id)
        )
        with self.engine.connect() as connection:
            return [StoredEvent(*row) for row in connection.execute(query).tuples()]

    def delete(self, user: str) -> int:
        """Delete all that is stored of a user and return the number of deleted interactions.

        The hash of the user's id is kept, so that a dataset that still has the user's interactions does not bring them
        back. Later events of the user are stored as those of a new user.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        stored = stored_id(user)
        with self.engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA secure_delete = ON")  # overwrite deleted rows in the file
            lock_users(connection, {stored})
            deleted = connection.execute(delete(EVENTS).where(EVENTS.c[USER] == stored)).rowcount
            key = {DELETED_USERS.c.user_hash.name: id_hash(stored)}
            if deleted and not connection.scalar(select(DELETED_USERS).filter_by(**key)):
                connection.execute(insert(DELETED_USERS), key)
        return deleted

    def deleted(self) -> set[str]:
        """Return the users of the dataset whose interactions have been deleted and of whom none were stored since.

        Raises:
            SQLAlchemyError: If the database cannot be used.
        """
        with self.engine.connect() as connection:
            hashes = connection.scalars(select(DELETED_USERS.c.user_hash)).all()
            users = [self._user_of_hash[each] for each in hashes if each in self._user_of_hash] if hashes else []
            of_id = {stored_id(user): user for user in users}
            ids = list(of_id)
            for begin in range(0, len(ids), MAX_PARAMETERS):
                some = ids[begin : begin + MAX_PARAMETERS]
                for stored in connection.scalars(select(EVENTS.c[USER]).where(EVENTS.c[USER].in_(some)).distinct()):
                    del of_id[stored]
        return set(of_id.values())

    @cached_property
    def _user_of_hash(self) -> dict[str, str]:
        """Users of the dataset by the hashes of their ids."""
        return {id_hash(stored_id(user)): user for user in self._dataset_users}

    def check(self) -> None:
        """Check that the tables can be read and a row can be inserted; the insertion is rolled back.

        Raises:
            DatabaseUnreachable: If the database does not respond.
            DatabaseUnusable: If it responds, but histories cannot be read or events cannot be stored.
        """
        try:
            connection = self.engine.connect()
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
        self.engine.dispose()


def _append(connection: Connection, events: Sequence[Event]) -> int:
    keys = [
        (stored_id(event.user_id), None if event.event_id is None else stored_id(event.event_id)) for event in events
    ]
    of_users = EVENTS.c[USER].in_({user for user, _ in keys})
    known = _known_events(connection, keys)
    last_times = select(EVENTS.c[USER], func.max(EVENTS.c[TIME])).where(of_users).group_by(EVENTS.c[USER])
    latest: dict[str, int] = dict(connection.execute(last_times).tuples().all())
    rows = []
    for index, (event, (user, event_id)) in enumerate(zip(events, keys, strict=True)):
        if (stored := known.get((user, event_id))) is not None:
            if stored.item_id != event.item_id or event.timestamp not in (None, stored.timestamp):
                raise EventConflict(index, stored)
            continue
        last = latest.get(user, 0)
        timestamp = max(int(time.time()), last) if event.timestamp is None else event.timestamp
        latest[user] = max(last, timestamp)
        rows.append({USER: user, ITEM: event.item_id, TIME: timestamp, "event_id": event_id})
        if event_id is not None:
            known[user, event_id] = StoredEvent(event.item_id, timestamp, event_id)
    if rows:
        connection.execute(insert(EVENTS), rows)
    return len(rows)


def _known_events(
    connection: Connection, keys: Sequence[tuple[str, str | None]]
) -> dict[tuple[str, str | None], StoredEvent]:
    """Return the stored events with ids of events to append, by the ids of user and event."""
    event_ids = {event_id for _, event_id in keys if event_id is not None}
    if not event_ids:
        return {}
    query = select(EVENTS.c[USER], EVENTS.c[ITEM], EVENTS.c[TIME], EVENTS.c.event_id).where(
        EVENTS.c[USER].in_({user for user, _ in keys}), EVENTS.c.event_id.in_(event_ids)
    )
    found = connection.execute(query).tuples()
    return {(user, event_id): StoredEvent(item, time, event_id) for user, item, time, event_id in found}

"""Histories of users in a database: SQLite, PostgreSQL or whatever else SQLAlchemy speaks to."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from lorarec.data import Dataset
from lorarec.data.columns import ITEM, TIME, USER
from lorarec.errors import LorarecError
from lorarec.personal import Past

_METADATA = MetaData()
_EVENTS = Table(
    "lorarec_events",
    _METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column(USER, String, nullable=False),
    Column(ITEM, String, nullable=False),
    Column(TIME, BigInteger, nullable=False),
    Column("event_id", String),
    UniqueConstraint(USER, "event_id"),
    Index("lorarec_events_of_user", USER, TIME, "id"),
)
_SOURCE = Table(
    "lorarec_source", _METADATA, Column("only", Integer, primary_key=True), Column("dataset", String, nullable=False)
)
_CHUNK = 10_000


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
        try:
            # A connection that the server closed meanwhile is replaced before it is used.
            self._engine = create_engine(url, pool_pre_ping=True, pool_timeout=5)
        except (ArgumentError, ImportError) as error:
            raise LorarecError(f"--db is no usable database URL: {str(error).splitlines()[0]}") from error
        self._shown = self._engine.url.render_as_string(hide_password=True)

    def fill(self, dataset: Dataset) -> None:
        """Store the interactions of the dataset in an empty database, all or none; one of this dataset stays as it is.

        Raises:
            LorarecError: the database cannot be reached, or holds the histories of another dataset.
        """
        try:
            _METADATA.create_all(self._engine)
            try:
                with self._engine.begin() as connection:
                    # The key lets one of several services that start together fill the tables.
                    connection.execute(insert(_SOURCE), {"only": 1, "dataset": dataset.fingerprint})
                    columns = dataset.interactions.select(USER, ITEM, TIME)
                    for chunk in columns.iter_slices(_CHUNK):
                        connection.execute(insert(_EVENTS), chunk.to_dicts())
            except IntegrityError:
                with self._engine.connect() as connection:
                    found = connection.scalar(select(_SOURCE.c.dataset))
                if found is None:
                    raise
                if found != dataset.fingerprint:
                    raise LorarecError(
                        f"database {self._shown} holds the histories of another dataset ({found}, not "
                        f"{dataset.fingerprint} of {dataset.name}): give another --db"
                    ) from None
        except SQLAlchemyError as error:
            raise LorarecError(f"database {self._shown} cannot be used: {str(error).splitlines()[0]}") from error

    def history(self, user: str, latest: int) -> list[str]:
        """At most `latest` item ids of a user, oldest first; empty for an unknown one.

        Raises:
            SQLAlchemyError: the database cannot be reached.
        """
        return list(self.past(user, latest).items)

    def past(self, user: str, latest: int) -> Past:
        """The same with times.

        Raises:
            SQLAlchemyError: the database cannot be reached.
        """
        rows = (
            select(_EVENTS.c[ITEM], _EVENTS.c[TIME])
            .where(_EVENTS.c[USER] == user)
            .order_by(_EVENTS.c[TIME].desc(), _EVENTS.c.id.desc())
            .limit(latest)
        )
        with self._engine.connect() as connection:
            found = connection.execute(rows).tuples().all()[::-1]
        return Past(user, [item for item, _ in found], [time for _, time in found])

    def append(self, events: Sequence[Event]) -> int:
        """Store events, all or none, and return how many were new.

        Raises:
            SQLAlchemyError: the database cannot be reached; nothing tells whether the events are stored, and sending
                those with an event id again is safe.
        """
        try:
            with self._engine.begin() as connection:
                return _append(connection, events)
        except IntegrityError:  # another client stored one of them between the look and the insertion
            with self._engine.begin() as connection:
                return _append(connection, events)

    def ping(self) -> None:
        """Reach the database.

        Raises:
            SQLAlchemyError: it cannot be reached.
        """
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _append(connection: Connection, events: Sequence[Event]) -> int:
    users = sorted({event.user_id for event in events})
    named = [event.event_id for event in events if event.event_id is not None]
    theirs = _EVENTS.c[USER].in_(users)
    seen = select(_EVENTS.c[USER], _EVENTS.c.event_id).where(theirs, _EVENTS.c.event_id.in_(named))
    known = {(user, event_id) for user, event_id in connection.execute(seen)} if named else set()
    ends = select(_EVENTS.c[USER], func.max(_EVENTS.c[TIME])).where(theirs).group_by(_EVENTS.c[USER])
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
        connection.execute(insert(_EVENTS), rows)
    return len(rows)

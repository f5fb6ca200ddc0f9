"""The tables of the histories, and how those of an earlier lorarec become them."""

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import Connection

from lorarec.data import ITEM, TIME, USER
from lorarec.errors import LorarecError

_METADATA = MetaData()
EVENTS = Table(
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
#: One row: the fingerprint of the dataset whose interactions were stored first.
SOURCE = Table(
    "lorarec_source", _METADATA, Column("only", Integer, primary_key=True), Column("dataset", String, nullable=False)
)
#: One row: the number of the schema.
SCHEMA = Table(
    "lorarec_schema", _METADATA, Column("only", Integer, primary_key=True), Column("version", Integer, nullable=False)
)
#: Always empty: whether a row can be inserted tells whether the database can be written to.
PROBE = Table("lorarec_probe", _METADATA, Column("moment", BigInteger, nullable=False))


def _create_events(connection: Connection) -> None:
    _METADATA.create_all(connection, [EVENTS, SOURCE])


def _create_probe(connection: Connection) -> None:
    _METADATA.create_all(connection, [PROBE])


#: The step at place n makes a database of schema n one of schema n + 1. Those without a number, empty ones and those of
#: lorarec 0.x that had the first two tables alone, are of schema 0.
STEPS: tuple[Callable[[Connection], None], ...] = (_create_events, _create_probe)


def upgrade(connection: Connection, shown: str) -> None:
    """Bring a database to the schema that this lorarec reads, in a transaction that no other process is inside of.

    Args:
        shown: how errors name the database.

    Raises:
        LorarecError: a later lorarec has changed it.
    """
    version = None
    if inspect(connection).has_table(SCHEMA.name):
        version = connection.scalar(select(SCHEMA.c.version))
    if version is not None and version > len(STEPS):
        raise LorarecError(
            f"database {shown} has schema {version}, of a later lorarec; this one reads up to {len(STEPS)}: upgrade "
            "lorarec, or give another --db"
        )
    for step in STEPS[version or 0 :]:
        step(connection)
    if version is None:
        _METADATA.create_all(connection, [SCHEMA])
        connection.execute(insert(SCHEMA), {"only": 1, "version": len(STEPS)})
    elif version < len(STEPS):
        connection.execute(update(SCHEMA), {"version": len(STEPS)})

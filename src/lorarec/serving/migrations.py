"""Tables of the histories, and the migrations from earlier versions."""

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
#: Table with one row: the fingerprint of the dataset whose interactions were stored first.
SOURCE = Table(
    "lorarec_source", _METADATA, Column("only", Integer, primary_key=True), Column("dataset", String, nullable=False)
)
#: Table with one row: the version of the schema.
SCHEMA = Table(
    "lorarec_schema", _METADATA, Column("only", Integer, primary_key=True), Column("version", Integer, nullable=False)
)
#: Table that stays empty: health checks insert a row and roll back, to find out whether the database is writable.
PROBE = Table("lorarec_probe", _METADATA, Column("moment", BigInteger, nullable=False))


def _create_events(connection: Connection) -> None:
    _METADATA.create_all(connection, [EVENTS, SOURCE])


def _create_probe(connection: Connection) -> None:
    _METADATA.create_all(connection, [PROBE])


#: Migrations in order: the one at index n upgrades schema n to n + 1. A database without a version has schema 0: it is
#: empty, or was created before schemas had versions and holds the first two tables.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_events, _create_probe)


def upgrade(connection: Connection, display_url: str) -> None:
    """Upgrade a database to the schema of this version.

    Args:
        connection: Connection with a transaction that excludes all other processes.
        display_url: URL of the database without its password, for error messages.

    Raises:
        LorarecError: If a later version has upgraded the database.
    """
    version = None
    if inspect(connection).has_table(SCHEMA.name):
        version = connection.scalar(select(SCHEMA.c.version))
    if version is not None and version > len(MIGRATIONS):
        raise LorarecError(
            f"database {display_url} has schema {version}, of a later lorarec; this one reads up to {len(MIGRATIONS)}: "
            "upgrade lorarec, or give another database (option db)"
        )
    for migrate in MIGRATIONS[version or 0 :]:
        migrate(connection)
    if version is None:
        _METADATA.create_all(connection, [SCHEMA])
        connection.execute(insert(SCHEMA), {"only": 1, "version": len(MIGRATIONS)})
    elif version < len(MIGRATIONS):
        connection.execute(update(SCHEMA), {"version": len(MIGRATIONS)})

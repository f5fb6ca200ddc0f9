"""Tables of the histories, and the migrations from earlier versions."""

import hashlib
from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Connection

from lorarec.data import ITEM, TIME, USER
from lorarec.errors import LorarecError

#: Maximum number of bytes of an id that is stored as it is. PostgreSQL's indexes take about 2,700 bytes a row.
MAX_ID_BYTES = 256
_HASH = "sha256:"

_METADATA = MetaData()
#: Table of the interactions of all users: those of the dataset, then the events. Ids of users and events are those of
#: `stored_id`.
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
#: Table with one row: the fingerprint of the dataset, and the id of the last of its interactions that were stored when
#: the database was filled.
SOURCE = Table(
    "lorarec_source",
    _METADATA,
    Column("only", Integer, primary_key=True),
    Column("dataset", String, nullable=False),
    Column("last_id", BigInteger),
)
#: Table with one row: the version of the schema.
SCHEMA = Table(
    "lorarec_schema", _METADATA, Column("only", Integer, primary_key=True), Column("version", Integer, nullable=False)
)
#: Table that stays empty: health checks insert a row and roll back, to find out whether the database is writable.
PROBE = Table("lorarec_probe", _METADATA, Column("moment", BigInteger, nullable=False))
#: Table of the hashes of the ids of deleted users, whose interactions are not read from a dataset again.
DELETED_USERS = Table("lorarec_deleted_users", _METADATA, Column("user_hash", String, primary_key=True))
#: Table of the aliases of adapters.
ALIASES = Table(
    "lorarec_aliases", _METADATA, Column("alias", String, primary_key=True), Column("adapter", String, nullable=False)
)
#: Table of what calls have said of items. Columns are JSON, and each change has a higher revision than those before.
ITEMS = Table(
    "lorarec_items",
    _METADATA,
    Column("item_id", String, primary_key=True),
    Column("title", String),
    Column("columns", String, nullable=False),
    Column("withdrawn", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False, index=True),
)
#: Table of the latest announcement of each adapter: the fingerprint of its version, or null if it is unloaded.
ADAPTERS = Table(
    "lorarec_adapters",
    _METADATA,
    Column("name", String, primary_key=True),
    Column("fingerprint", String),
    Column("revision", BigInteger, nullable=False, unique=True),
)


def stored_id(text: str) -> str:
    """Return the id of a user or event as the tables hold it: a long one is replaced by its SHA-256 hash."""
    if len(text.encode()) <= MAX_ID_BYTES and not text.startswith(_HASH):
        return text
    return _HASH + id_hash(text)


def id_hash(text: str) -> str:
    """Return the SHA-256 hash of an id as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _create_events(connection: Connection) -> None:
    _METADATA.create_all(connection, [EVENTS, SOURCE])


def _create_probe(connection: Connection) -> None:
    _METADATA.create_all(connection, [PROBE])


def _hash_long_ids(connection: Connection) -> None:
    for column in (EVENTS.c[USER], EVENTS.c.event_id):
        # A character takes at most four bytes.
        may_change = or_(func.length(column) > MAX_ID_BYTES // 4, column.startswith(_HASH))
        for text in connection.scalars(select(column).where(may_change).distinct()).all():
            if (new := stored_id(text)) != text:
                connection.execute(update(EVENTS).where(column == text).values({column: new}))


def _add_last_id(connection: Connection) -> None:
    if all(column["name"] != SOURCE.c.last_id.name for column in inspect(connection).get_columns(SOURCE.name)):
        connection.exec_driver_sql(f"ALTER TABLE {SOURCE.name} ADD COLUMN {SOURCE.c.last_id.name} BIGINT")


def _create_deleted_users(connection: Connection) -> None:
    _METADATA.create_all(connection, [DELETED_USERS])


def _create_aliases(connection: Connection) -> None:
    _METADATA.create_all(connection, [ALIASES])


def _create_items(connection: Connection) -> None:
    _METADATA.create_all(connection, [ITEMS])


def _create_adapters(connection: Connection) -> None:
    _METADATA.create_all(connection, [ADAPTERS])


#: Migrations in order: the one at index n upgrades schema n to n + 1. A database without a version has schema 0: it is
#: empty, or was created before schemas had versions and holds the first two tables.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create_events,
    _create_probe,
    _hash_long_ids,
    _add_last_id,
    _create_deleted_users,
    _create_aliases,
    _create_items,
    _create_adapters,
)


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

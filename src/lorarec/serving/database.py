"""Database connections and calls, each with a deadline."""

import asyncio
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from psycopg import Connection as PsycopgConnection
from psycopg import OperationalError
from psycopg.abc import PQGen
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError

from lorarec.errors import LorarecError
from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics

#: Seconds after which a request no longer waits for a call to the database.
CALL_SECONDS = 5.0
#: Seconds that the database may take for one statement, and to grant a lock.
STATEMENT_SECONDS = 3.0
#: Seconds that a connection may take to open.
CONNECT_SECONDS = 3
#: The same limits at the start, where a replica waits until another one has filled the tables.
START_SECONDS = 600.0
#: Number of calls that read at the same time, and of those that write.
READ_THREADS = 8
WRITE_THREADS = 4
#: PostgreSQL's advisory lock under which tables are created and filled: "lorarec" in ASCII.
LOCK = int.from_bytes(b"lorarec", "big")
#: PostgreSQL's advisory locks of users have two numbers: this one, "lore" in ASCII, and one of `USER_LOCKS`. By default
#: a server has room for 64 locks for each of its connections.
USER_LOCK = int.from_bytes(b"lore", "big")
USER_LOCKS = 32
#: PostgreSQL's advisory lock under which aliases and items are changed: "lorshare" in ASCII.
SHARED_LOCK = int.from_bytes(b"lorshare", "big")
#: Number of calls that read or change aliases and items at the same time, and of those that run or wait.
SHARED_THREADS = 1
SHARED_LIMIT = 64

T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Deadline(PsycopgConnection[Any]):
    """Connection to PostgreSQL that is closed when the server does not respond."""

    seconds = STATEMENT_SECONDS + 1  # the server's own limits apply first

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        deadline = time.monotonic() + self.seconds
        try:
            return super().wait(gen, interval, self.seconds if timeout is None else timeout)
        except OperationalError:
            if time.monotonic() >= deadline:
                self.pgconn.finish()  # the state of the connection is unknown
            raise


class _StartDeadline(_Deadline):
    seconds = START_SECONDS


def as_url(db: str) -> str:
    """Return the URL of a database, which is given by its URL or as the path of an SQLite file."""
    return db if "://" in db else f"sqlite:///{db}"


def open_engine(url: str) -> Engine:
    """Open a pool of connections for requests, on which each statement ends within `STATEMENT_SECONDS`.

    Connections to SQLite do not create its file, and are not reused once it was removed or replaced.

    Raises:
        LorarecError: If the kind of database is unknown, or its driver is not installed.
    """
    engine = _engine(url, STATEMENT_SECONDS, _Deadline, pooled=True)
    if path := _file(engine.url):

        @event.listens_for(engine, "do_connect")
        def open_existing(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> None:
            cargs[0] = f"file:{quote(path)}?mode=rw"
            cparams["uri"] = True

        @event.listens_for(engine, "connect")
        def remember_file(connection: Any, record: Any) -> None:
            record.info["file"] = _file_identity(path)

        @event.listens_for(engine, "checkout")
        def check_file(connection: Any, record: Any, proxy: Any) -> None:
            if record.info["file"] != _file_identity(path):
                raise DisconnectionError("the database's file was removed or replaced")

    return engine


def open_start_engine(url: str) -> Engine:
    """Open the connection that creates and fills the tables in one transaction.

    In PostgreSQL and SQLite such a transaction excludes those of other processes, which wait for it.

    Raises:
        LorarecError: If the kind of database is unknown, or its driver is not installed.
    """
    engine = _engine(url, START_SECONDS, _StartDeadline, pooled=False)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def disable_autobegin(connection: sqlite3.Connection, record: Any) -> None:
            connection.isolation_level = None  # the driver would begin no transaction before it creates tables

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    elif engine.dialect.name == "postgresql":

        @event.listens_for(engine, "begin")
        def lock(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    return engine


def open_reading_engine(url: str) -> Engine:
    """Open connections for long reads, without creating an SQLite file.

    Raises:
        LorarecError: If the kind of database is unknown, its driver is not installed, or there is no such file.
    """
    engine = _engine(url, START_SECONDS, _StartDeadline, pooled=False)
    path = _file(engine.url)
    if path and not os.path.isfile(path):
        raise LorarecError(f"database {path} does not exist: give the one of the service (option db)")
    return engine


def _engine(url: str, seconds: float, connection: type[_Deadline], pooled: bool) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise LorarecError("option db is a database in memory, which keeps nothing: give a file or a server")
        if pooled:
            # One connection more than threads of `DatabaseCalls`: health checks have a thread of their own.
            engine = create_engine(
                parsed,
                pool_size=READ_THREADS + WRITE_THREADS + SHARED_THREADS + 1,
                max_overflow=0,
                pool_timeout=STATEMENT_SECONDS,
                pool_pre_ping=True,
            )
        else:
            engine = create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, ImportError) as error:
        raise LorarecError(f"option db is not a usable database URL: {str(error).splitlines()[0]}") from error

    @event.listens_for(engine, "do_connect")
    def connect_with_deadline(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> Any:
        if dialect.name == "sqlite":
            cparams.setdefault("timeout", seconds)
        elif dialect.driver == "psycopg":
            cparams.setdefault("connect_timeout", CONNECT_SECONDS)
            return connection.connect(*cargs, **cparams)
        return None

    if engine.dialect.name == "postgresql":

        @event.listens_for(engine, "connect")
        def limit_statements(connection: Any, record: Any) -> None:
            with connection.cursor() as cursor:
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                    cursor.execute(f"SET {name} = {int(1000 * seconds)}")
            connection.commit()

    return engine


def _file(url: URL) -> str | None:
    """Return the path of an SQLite file, or None for any other database."""
    if url.get_backend_name() != "sqlite" or str(url.database).startswith("file:"):
        return None
    return os.path.abspath(str(url.database))


def _file_identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def lock_users(connection: Connection, users: Collection[str]) -> None:
    """Make this transaction wait for those of other processes that write events of the same users.

    In SQLite it waits for any other that writes. It must be the first statement of the transaction. Other databases
    than SQLite and PostgreSQL are not locked.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        # All transactions take the locks in the same order, so none waits for another that waits for it.
        locks = sorted({zlib.crc32(user.encode()) % USER_LOCKS for user in users})
        statement = "SELECT pg_advisory_xact_lock(:kind, lock) FROM unnest(CAST(:locks AS integer[])) AS lock"
        connection.execute(text(statement), {"kind": USER_LOCK, "locks": locks})


def lock_shared(connection: Connection) -> None:
    """Make this transaction wait for those of other processes that change what all replicas read, such as aliases.

    It must be the first statement of the transaction. Other databases than SQLite and PostgreSQL are not locked.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SHARED_LOCK})")


class DatabaseCalls:
    """Run calls to the database in threads of their own, so that nothing else waits when it does not respond.

    Args:
        threads: Number of calls that run at the same time.
        limit: Maximum number of calls that run or wait at once; further calls are refused.
        metrics: Counters of the service.
    """

    def __init__(self, threads: int, limit: int, metrics: Metrics) -> None:
        self._threads = ThreadPoolExecutor(threads, "database")
        self._limit = limit
        self._metrics = metrics
        self._places = threading.Semaphore(limit)

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Run a call and return its result.

        Raises:
            ApiError: 503, if the call does not end within `CALL_SECONDS`; 429, if too many calls run or wait.
        """
        if not self._places.acquire(blocking=False):
            self._metrics.rejected.inc()
            raise ApiError(429, f"{self._limit} requests wait for the database: try again in 1 s", None, 1)
        future = self._threads.submit(call, *args)
        # A call that runs keeps its place until it ends, even if its request has been answered or abandoned.
        future.add_done_callback(lambda _: self._places.release())
        try:
            with self._metrics.stage("database"):
                async with asyncio.timeout(CALL_SECONDS):
                    return await asyncio.wrap_future(future)
        except TimeoutError:
            logger.warning("the database did not answer within %g s", CALL_SECONDS)
            raise database_error() from None

    def close(self) -> None:
        """Start no further call; a call that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def database_error() -> ApiError:
    """Return the error of a request whose call to the database failed."""
    return ApiError(503, "the database cannot be reached: try again; events with an event_id are stored once", None, 1)

"""Connections to the database of the histories and calls to it, each with a deadline."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from psycopg import Connection as PsycopgConnection
from psycopg import OperationalError
from psycopg.abc import PQGen
from sqlalchemy import NullPool, create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError

from lorarec.errors import LorarecError
from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics

#: Seconds in which a call must be done, from the view of the request that waits for it.
CALL_SECONDS = 5.0
#: Seconds in which the database must answer one statement, and give a lock.
ANSWER_SECONDS = 3.0
#: Seconds to connect.
CONNECT_SECONDS = 3
#: The same at the start, where a replica waits until another has filled the tables.
START_SECONDS = 600.0
#: Calls that run at the same time.
THREADS = 8
#: PostgreSQL's advisory lock under which tables are made and filled: "lorarec" in ASCII.
LOCK = int.from_bytes(b"lorarec", "big")

T = TypeVar("T")


class _Deadline(PsycopgConnection[Any]):
    """A connection to PostgreSQL that is given up when the server does not answer."""

    seconds = ANSWER_SECONDS + 1  # the server's own limits come first

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        ends = time.monotonic() + self.seconds
        try:
            return super().wait(gen, interval, self.seconds if timeout is None else timeout)
        except OperationalError:
            if time.monotonic() >= ends:
                self.pgconn.finish()  # its state is unknown
            raise


class _StartDeadline(_Deadline):
    seconds = START_SECONDS


def open_engine(url: str) -> Engine:
    """Connections for the calls of requests, each statement of which ends in `ANSWER_SECONDS`.

    Connections to SQLite do not create its file, and are not used again once it was removed or replaced.

    Raises:
        LorarecError: no such kind of database, or a driver is missing.
    """
    # One connection more than threads: the check of the database's state has its own thread.
    sizes = {"pool_size": THREADS + 1, "max_overflow": 0, "pool_timeout": ANSWER_SECONDS}
    engine = _engine(url, ANSWER_SECONDS, _Deadline, pool_pre_ping=True, **sizes)
    if path := _file(engine.url):

        @event.listens_for(engine, "do_connect")
        def existing(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> None:
            cargs[0] = f"file:{quote(path)}?mode=rw"
            cparams["uri"] = True

        @event.listens_for(engine, "connect")
        def opened(connection: Any, record: Any) -> None:
            record.info["file"] = _identity(path)

        @event.listens_for(engine, "checkout")
        def same_file(connection: Any, record: Any, proxy: Any) -> None:
            if record.info["file"] != _identity(path):
                raise DisconnectionError("the database's file was removed or replaced")

    return engine


def open_start_engine(url: str) -> Engine:
    """The connection that makes and fills the tables in one transaction.

    In PostgreSQL and SQLite only one process at a time is inside such a transaction; others wait for it.

    Raises:
        LorarecError: as `open_engine`.
    """
    engine = _engine(url, START_SECONDS, _StartDeadline, poolclass=NullPool)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def explicit(connection: sqlite3.Connection, record: Any) -> None:
            connection.isolation_level = None  # else the driver begins no transaction before it makes tables

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    elif engine.dialect.name == "postgresql":

        @event.listens_for(engine, "begin")
        def lock(connection: Connection) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    return engine


def _engine(url: str, seconds: float, connection: type[_Deadline], **options: Any) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise LorarecError("--db is a database in memory, which keeps nothing: give a file or a server")
        engine = create_engine(parsed, **options)
    except (ArgumentError, ImportError) as error:
        raise LorarecError(f"--db is no usable database URL: {str(error).splitlines()[0]}") from error

    @event.listens_for(engine, "do_connect")
    def limited(dialect: Any, record: Any, cargs: list[Any], cparams: dict[str, Any]) -> Any:
        if dialect.name == "sqlite":
            cparams.setdefault("timeout", seconds)
        elif dialect.driver == "psycopg":
            cparams.setdefault("connect_timeout", CONNECT_SECONDS)
            return connection.connect(*cargs, **cparams)
        return None

    if engine.dialect.name == "postgresql":

        @event.listens_for(engine, "connect")
        def limited_statements(connection: Any, record: Any) -> None:
            with connection.cursor() as cursor:
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                    cursor.execute(f"SET {name} = {int(1000 * seconds)}")
            connection.commit()

    return engine


def _file(url: URL) -> str | None:
    """Path of an SQLite file; None of any other database."""
    if url.get_backend_name() != "sqlite" or str(url.database).startswith("file:"):
        return None
    return os.path.abspath(str(url.database))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class DatabaseCalls:
    """Runs calls to the database in threads of their own, so that nothing else waits when it does not answer.

    Args:
        limit: calls that run or wait at once; those beyond are refused.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "database")
        self._limit = limit
        self._metrics = metrics
        self._inside = 0

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """What a call returns, or raises.

        Raises:
            Problem: 503, it does not end in `CALL_SECONDS`; 429, too many others wait.
        """
        if self._inside >= self._limit:
            self._metrics.rejected.inc()
            raise ApiError(429, f"{self._limit} requests wait for the database: try again in 1 s", None, 1)
        self._inside += 1
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        except TimeoutError:
            raise unreachable() from None
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Begin no further call; one that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def unreachable() -> ApiError:
    """The answer to a request whose call to the database failed."""
    return ApiError(503, "the database cannot be reached: try again; events with an event_id are stored once", None, 1)

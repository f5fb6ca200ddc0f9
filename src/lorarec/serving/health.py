"""Health checks, which answer at once even if a thread or the database hangs."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lorarec.serving.histories import DatabaseUnreachable, DatabaseUnusable, Histories

OK, UNREACHABLE, UNUSABLE = "ok", "unreachable", "unusable"
#: Seconds to wait for the result of a check; a healthy database needs a few milliseconds.
WAIT_SECONDS = 0.05
#: Seconds for which a successful check is valid.
FRESH_SECONDS = 0.5
#: Seconds after which a database counts as unreachable if its check has not finished.
SLOW_SECONDS = 1.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class WatchedThread(ThreadPoolExecutor):
    """Executor with one thread, which counts as stuck while a call takes too long.

    Args:
        name: Prefix of the thread's name.
        timeout: Maximum duration of a call in seconds.
    """

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__(1, name)
        self._timeout = timeout
        self._began: float | None = None

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Any:
        """Schedule a call and record when it begins."""

        def watched() -> T:
            self._began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._began = None

        return super().submit(watched)

    @property
    def stuck(self) -> bool:
        """Whether the current call has exceeded the timeout."""
        began = self._began
        return began is not None and time.monotonic() - began > self._timeout


class DatabaseState:
    """State of the database, which is checked on demand in a thread of its own.

    Args:
        histories: Histories whose database is checked.
    """

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._thread = ThreadPoolExecutor(1, "database-state")
        self._state = OK  # the service has just written to the database
        self._check: asyncio.Future[str] | None = None
        self._began = 0.0

    async def current(self) -> str:
        """Return `ok`, `unreachable` or `unusable`."""
        loop = asyncio.get_running_loop()
        if self._check is not None and self._check.done():
            # A slow check may have finished after the last call returned.
            self._state = self._check.result()
        fresh = self._state == OK and loop.time() - self._began < FRESH_SECONDS
        if self._check is None or (self._check.done() and not fresh):
            self._began = loop.time()
            self._check = loop.run_in_executor(self._thread, self._run_check)
        if not self._check.done():
            await asyncio.wait([self._check], timeout=WAIT_SECONDS)
        if self._check.done():
            self._state = self._check.result()
        elif loop.time() - self._began > SLOW_SECONDS:
            self._state = UNREACHABLE
        return self._state

    def _run_check(self) -> str:
        try:
            self._histories.check()
        except DatabaseUnreachable as error:
            logger.warning("the database cannot be reached: %s", error)
            return UNREACHABLE
        except DatabaseUnusable as error:
            logger.warning("the database cannot be used: %s", error)
            return UNUSABLE
        return OK

    def close(self) -> None:
        """Start no further check; a check that hangs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

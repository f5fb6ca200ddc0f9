"""Checks of whether the service is alive and ready, which answer at once even where something hangs."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lorarec.serving.histories import DatabaseUnreachable, DatabaseUnusable, Histories

OK, UNREACHABLE, UNUSABLE = "ok", "unreachable", "unusable"
#: Seconds that a question waits for the answer of a check; a healthy database needs a few milliseconds.
WAIT_SECONDS = 0.05
#: Seconds for which the result of a check holds, if it was good.
FRESH_SECONDS = 0.5
#: Seconds after which a database whose check has no result counts as unreachable.
SLOW_SECONDS = 1.0

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class WatchedThread(ThreadPoolExecutor):
    """An executor with one thread, which counts as stuck when one call takes too long.

    Args:
        seconds: the longest that a call may take.
    """

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(1, name)
        self._seconds = seconds
        self._began: float | None = None

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Any:
        """Schedule a call, as any executor does, and note when it begins."""

        def watched() -> T:
            self._began = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self._began = None

        return super().submit(watched)

    @property
    def stuck(self) -> bool:
        """Whether the call that runs now has taken too long."""
        began = self._began
        return began is not None and time.monotonic() - began > self._seconds


class DatabaseState:
    """The latest result of a check of the database, which runs in a thread of its own when it is asked for.

    Args:
        histories: what is checked.
    """

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._thread = ThreadPoolExecutor(1, "database-state")
        self._known = OK  # the service has just filled it
        self._check: asyncio.Future[str] | None = None
        self._began = 0.0

    async def now(self) -> str:
        """`ok`, `unreachable` or `unusable`."""
        loop = asyncio.get_running_loop()
        if self._check is not None and self._check.done():
            # A check that took long may have ended since it was last asked for.
            self._known = self._check.result()
        fresh = self._known == OK and loop.time() - self._began < FRESH_SECONDS
        if self._check is None or (self._check.done() and not fresh):
            self._began = loop.time()
            self._check = loop.run_in_executor(self._thread, self._ask)
        if not self._check.done():
            await asyncio.wait([self._check], timeout=WAIT_SECONDS)
        if self._check.done():
            self._known = self._check.result()
        elif loop.time() - self._began > SLOW_SECONDS:
            self._known = UNREACHABLE
        return self._known

    def _ask(self) -> str:
        try:
            self._histories.check()
        except DatabaseUnreachable as error:
            _LOG.warning("the database cannot be reached: %s", error)
            return UNREACHABLE
        except DatabaseUnusable as error:
            _LOG.warning("the database cannot be used: %s", error)
            return UNUSABLE
        return OK

    def close(self) -> None:
        """Check no more; a check that hangs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

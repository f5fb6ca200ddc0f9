"""Whether the service lives and whether it is ready, told at once whatever hangs."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lorarec.serving.histories import Histories, Unreachable, Unusable

OK, UNREACHABLE, UNUSABLE = "ok", "unreachable", "unusable"
#: Seconds that a question waits for the answer of a check; a healthy database needs a few milliseconds.
WAIT_SECONDS = 0.05
#: Seconds for which the result of a check holds, if it was good.
FRESH_SECONDS = 0.5
#: Seconds after which a check without an answer tells that the database does not answer.
SLOW_SECONDS = 1.0

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class WatchedThread(ThreadPoolExecutor):
    """One thread for work in order, which tells for how long it has been busy with the same piece.

    Args:
        seconds: of one piece, after which the thread counts as stuck.
    """

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(1, name)
        self._seconds = seconds
        self._began: float | None = None

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Any:
        """As of any executor."""

        def watched() -> T:
            self._began = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self._began = None

        return super().submit(watched)

    @property
    def stuck(self) -> bool:
        """Whether the same piece of work has taken too long."""
        began = self._began
        return began is not None and time.monotonic() - began > self._seconds


class DatabaseState:
    """What is known of the database: checked in a thread of its own when somebody asks, and never waited for long.

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
        except Unreachable as error:
            _LOG.warning("the database cannot be reached: %s", error)
            return UNREACHABLE
        except Unusable as error:
            _LOG.warning("the database cannot be used: %s", error)
            return UNUSABLE
        return OK

    def close(self) -> None:
        """Check no more; a check that hangs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

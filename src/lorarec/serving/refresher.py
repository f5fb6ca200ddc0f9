"""Repeated reading of what replicas change in the database."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from lorarec.errors import LorarecError
from lorarec.serving.errors import ApiError

#: Seconds after which a replica reads what others have changed.
REFRESH_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Refresher:
    """Call functions again and again while the service runs; one that fails is called again the next time.

    Failures of one function in a row are logged once, unexpected ones each time.

    Args:
        calls: Functions that read what other replicas changed, or remove what was not used.
        seconds: Seconds between two calls.
    """

    def __init__(self, calls: Sequence[Callable[[], Awaitable[None]]], seconds: float = REFRESH_SECONDS) -> None:
        self._calls = calls
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to call the functions; an event loop must be running."""
        self._task = asyncio.create_task(self._repeat())

    async def stop(self) -> None:
        """Call the functions no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _repeat(self) -> None:
        failing: set[Callable[[], Awaitable[None]]] = set()
        while True:
            await asyncio.sleep(self._seconds)
            for call in self._calls:
                try:
                    await call()
                    failing.discard(call)
                except (ApiError, LorarecError, SQLAlchemyError) as error:
                    if call not in failing:
                        logger.warning("changes of other replicas cannot be read: %s", str(error).splitlines()[0])
                    failing.add(call)
                except Exception:  # later changes must still be read
                    logger.exception("changes of other replicas cannot be applied")

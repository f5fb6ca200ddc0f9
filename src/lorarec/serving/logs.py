"""Logging of the service, with a limit on the rate of each kind of message."""

import logging
import time

_MAX_KINDS = 1000


class RateLimit(logging.Filter):
    """Limit how many messages of one kind are written in a period; the next one says how many were left out.

    Messages are of the same kind if their logger, their level and their first line before formatting are the same.

    Args:
        limit: Maximum number of messages of one kind in a period.
        seconds: Length of a period in seconds.
    """

    def __init__(self, limit: int = 5, seconds: float = 60.0) -> None:
        super().__init__()
        self._limit = limit
        self._seconds = seconds
        self._kinds: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a message."""
        kind = (record.name, record.levelno, str(record.msg).partition("\n")[0][:100])
        now = time.monotonic()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began > self._seconds:
            if count > self._limit:
                record.msg, record.args = f"{record.getMessage()} ({count - self._limit} more were left out)", ()
            began, count = now, 0
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (began, count + 1)
        return count < self._limit


def configure_logging() -> None:
    """Write warnings of this process to standard error, at a limited rate."""
    handler = logging.StreamHandler()
    handler.addFilter(RateLimit())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler])

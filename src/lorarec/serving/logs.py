"""The log of the service, with a limit on the rate of each kind of message."""

import logging
import time

_MOST_KINDS = 1000


class RateLimit(logging.Filter):
    """Lets a few messages of each kind through in a period, and adds to the next one how many were left out.

    Messages are of one kind if their logger, level and first line before formatting are alike.

    Args:
        most: messages of one kind in a period.
        seconds: length of a period.
    """

    def __init__(self, most: int = 5, seconds: float = 60.0) -> None:
        super().__init__()
        self._most = most
        self._seconds = seconds
        self._kinds: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a message."""
        kind = (record.name, record.levelno, str(record.msg).partition("\n")[0][:100])
        now = time.monotonic()
        began, count = self._kinds.get(kind, (now, 0))
        if now - began > self._seconds:
            if count > self._most:
                record.msg, record.args = f"{record.getMessage()} ({count - self._most} more were left out)", ()
            began, count = now, 0
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (began, count + 1)
        return count < self._most


def configure_logging() -> None:
    """Write warnings of this process to standard error, at a bounded rate."""
    handler = logging.StreamHandler()
    handler.addFilter(RateLimit())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler])

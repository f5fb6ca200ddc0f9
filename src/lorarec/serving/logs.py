"""Logging of the service: messages at a limited rate, and a line of JSON for each request."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from lorarec.serving.metrics import Stage
from lorarec.serving.request_facts import RequestFacts
from lorarec.serving.request_ids import current_request_id

_MAX_KINDS = 1000

#: Logger of a line of JSON for each request; it is off unless `configure_logging` turns it on.
requests = logging.getLogger("lorarec.requests")
requests.propagate = False
requests.setLevel(logging.CRITICAL)


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


def configure_logging(log_requests: bool = False) -> None:
    """Write warnings of this process to standard error, at a limited rate.

    Args:
        log_requests: Whether to write a line of JSON for each request to standard output as well (see `log_request`).
    """
    handler = logging.StreamHandler()
    handler.addFilter(RateLimit())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", handlers=[handler])
    if log_requests:
        requests.addHandler(logging.StreamHandler(sys.stdout))
        requests.setLevel(logging.INFO)


def log_request(
    method: str, path: str, status: int, seconds: float, stages: Sequence[Stage], facts: RequestFacts
) -> None:
    """Write a line of JSON about a request; it never has ids of users, titles or keys.

    Args:
        method: HTTP method.
        path: Path as the API describes it, with names in place of the parts that clients choose.
        status: HTTP status of the response.
        seconds: Duration of the request.
        stages: Its stages.
        facts: Name of its API key, its variant, the versions of the adapters that answered, and the id of its trace.
    """
    if requests.isEnabledFor(logging.INFO):
        durations: dict[str, float] = {}
        for each in stages:
            durations[each.name] = durations.get(each.name, 0.0) + each.ended - each.began
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": current_request_id(),
            "method": method,
            "path": path,
            "status": status,
            "seconds": round(seconds, 6),
            **{f"{stage}_seconds": round(value, 6) for stage, value in durations.items()},
            **{name: fact for name, fact in asdict(facts).items() if fact},
        }
        requests.info(json.dumps(line))

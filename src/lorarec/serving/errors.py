"""What a request did wrong, or why it cannot be answered now: a status, the field at fault and what to do."""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """Ends a request with a status and `{"error": {"field", "message"}}`.

    Args:
        status: the HTTP status.
        message: one line that names the culprit and the fix.
        field: where in the request, as in `candidates.3`; None when it is no part of the body.
        retry_after: seconds after which it is worth trying again.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    @property
    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {"error": {"field": self.field, "message": printable(self.message)}}


class ClientDisconnected(Exception):
    """The client left before its answer was there."""


def printable(text: str) -> str:
    """Text that UTF-8 can hold: JSON escapes may smuggle in halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()

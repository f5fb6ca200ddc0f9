"""Exceptions that end a request, with the status and message that the client receives."""

from collections.abc import Mapping


class ApiError(Exception):
    """End a request with an HTTP status and the body `{"error": {"field": ..., "message": ...}}`.

    Args:
        status: HTTP status code.
        message: One line that names what is wrong and how to correct it.
        field: Path of the field at fault, as in `candidates.3`; None if no field of the request is at fault.
        retry_after: Number of seconds after which the client may try again, sent as `Retry-After`.
        headers: Further headers of the response.
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
    def body(self) -> dict[str, dict[str, str | None]]:
        """The body of the response."""
        # JSON escapes can smuggle in halves of surrogate pairs, which UTF-8 cannot encode.
        message = self.message.encode("utf-8", "backslashreplace").decode()
        return {"error": {"field": self.field, "message": message}}


class ClientDisconnected(Exception):
    """The client closed the connection before its response was ready."""

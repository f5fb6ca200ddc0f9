"""Exceptions that end a request, and the problem details (RFC 9457) that the client receives."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from lorarec.serving.request_ids import current_request_id

#: Media type of problem details.
PROBLEM = "application/problem+json"
#: Maximum number of faults that a response lists; a body can have thousands.
MAX_FAULTS = 8


@dataclass(frozen=True)
class Fault:
    """What is wrong with one field of a request.

    Attributes:
        message: One line that names what is wrong and how to correct it.
        field: Path of the field, as in `candidates.3`; None if no single field is at fault.
    """

    message: str
    field: str | None = None

    def __str__(self) -> str:
        return self.message if self.field is None else f"{self.field}: {self.message}"


class ApiError(Exception):
    """End a request with an HTTP status and problem details.

    Args:
        status: HTTP status code.
        message: One line that names what is wrong and how to correct it.
        field: Path of the field at fault, as in `candidates.3`; None if no field of the request is at fault.
        retry_after: Number of seconds after which the client may try again, sent as `Retry-After`.
        headers: Further headers of the response.
        faults: Faults of several fields, in place of `message` and `field`.
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        field: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        self.faults = tuple(faults) or (Fault(message, field),)
        super().__init__(str(self.faults[0]))
        self.status = status
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    @property
    def message(self) -> str:
        """What is wrong first."""
        return self.faults[0].message

    @property
    def field(self) -> str | None:
        """Path of the first field at fault."""
        return self.faults[0].field

    @property
    def body(self) -> dict[str, Any]:
        """Problem details: the body of the response."""
        more = len(self.faults) - 1
        detail = f"{self.faults[0]} (and {more} more: see errors)" if more else str(self.faults[0])
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": _printable(detail),
            "request_id": current_request_id(),
            "errors": [
                {"field": _printable(fault.field), "message": _printable(fault.message)}
                for fault in self.faults[:MAX_FAULTS]
                if fault.field is not None
            ],
        }
        return problem

    @property
    def response(self) -> JSONResponse:
        """The response of the API."""
        return JSONResponse(self.body, self.status, self.headers, PROBLEM)

    def with_fields(self, names: Mapping[str, str]) -> "ApiError":
        """Return the error with other names of the fields, for a request that calls them differently."""
        faults = [replace(fault, field=_renamed(fault.field, names)) for fault in self.faults]
        return ApiError(self.status, headers=self.headers, faults=faults)


class FaultCollector:
    """Collect the faults of a request, so that its client learns all of them at once.

    Examples:
        >>> faults = FaultCollector()
        >>> for field in ("candidates", "history"):
        ...     with faults.collect():
        ...         raise ApiError(422, "too long", field)
        >>> try:
        ...     faults.refuse()
        ... except ApiError as error:
        ...     print([fault.field for fault in error.faults])
        ['candidates', 'history']
    """

    def __init__(self) -> None:
        self._errors: list[ApiError] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep an error of the request that is raised within, and go on after the block."""
        try:
            yield
        except ApiError as error:
            if error.status not in (404, 422):
                raise
            self._errors.append(error)

    def refuse(self) -> None:
        """End the request if there was a fault.

        Raises:
            ApiError: 404, if what the request names does not exist and nothing else is wrong; otherwise 422.
        """
        if self._errors:
            status = max(error.status for error in self._errors)
            raise ApiError(status, faults=[fault for error in self._errors for fault in error.faults])


class ClientDisconnected(Exception):
    """The client closed the connection before its response was ready."""


def _renamed(field: str | None, names: Mapping[str, str]) -> str | None:
    if field is None:
        return None
    name, dot, rest = field.partition(".")
    return names.get(name, name) + dot + rest


def _printable(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON escapes can smuggle in and UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()

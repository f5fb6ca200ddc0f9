"""Ids of requests, which a client or proxy may give and which every response returns."""

import re
import uuid
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Header of the id, in requests and responses.
REQUEST_ID = "X-Request-ID"
#: Ids that are taken over from a request; they are safe in logs and headers.
VALID_ID = r"[A-Za-z0-9][A-Za-z0-9._:=+/-]{0,127}"

_HEADER = REQUEST_ID.lower().encode()
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def current_request_id() -> str | None:
    """Return the id of the request that this task or thread works for; None outside of a request."""
    return _current.get()


class RequestIdMiddleware:
    """ASGI middleware that gives each request an id, and each response the header `X-Request-ID`.

    An id that a client sends is taken over if it is well-formed and sent once; otherwise it is replaced.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _given_id(scope) or uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (_HEADER, request_id.encode())]}
            await send(message)

        token = _current.set(request_id)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            _current.reset(token)


def _given_id(scope: Scope) -> str | None:
    """Return the id that a request brings along, if there is one and it is well-formed."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
    return given[0] if len(given) == 1 and re.fullmatch(VALID_ID, given[0]) else None

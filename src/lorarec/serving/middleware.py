"""What every request passes before it is read: method, key, origin, size and shape; and what is counted about each."""

import asyncio
import hmac
import json
import re
import time
from itertools import accumulate
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics
from lorarec.serving.page import FILES

MAX_BODY = 1 << 20
MAX_DEPTH = 16
#: Limits on a body's JSON that no request reaches; they bound the time that parsing and validation take.
MAX_VALUES = 25_000
MAX_MEMBERS = 5_000
#: Seconds in which a request's body must have arrived.
BODY_SECONDS = 20.0
#: Answered without a key, and to GET and HEAD alone.
OPEN = ("/healthz", "/livez", "/readyz", *FILES)
LOCAL = ("127.0.0.1", "localhost", "[::1]")
#: Methods that are labels of metrics; a client can make up any other.
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class AuthMiddleware:
    """ASGI middleware that refuses requests before anything in them is parsed.

    With a key, a request needs `Authorization: Bearer KEY`. Without one the service is for this machine alone: the Host
    must be local, so that a web page cannot reach it under a name of its own (DNS rebinding), and a browser must not
    say that a page of another origin asks. The open paths take GET and HEAD alone, and no body.

    Args:
        body_seconds: time in which a body must have arrived.
    """

    def __init__(self, app: ASGIApp, key: str | None, body_seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self._key = None if key is None else key.encode()
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_open = scope["path"] in OPEN
        try:
            if is_open and scope["method"] not in ("GET", "HEAD"):
                raise ApiError(405, "this path answers GET and HEAD only", headers={"Allow": "GET, HEAD"})
            self._authorise(headers, is_open)
            body = b"" if is_open else await self._body(headers, receive)
            check_json(body)
        except ApiError as problem:
            await answer(send, problem)
            return
        await self.app(scope, _replayed(body, receive), send)

    def _authorise(self, headers: dict[bytes, bytes], is_open: bool) -> None:
        if self._key is None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            if re.sub(r":\d*$", "", host) not in LOCAL:
                raise ApiError(421, "this service has no API key and answers to localhost only: set LORAREC_API_KEY")
            if not is_open and _of_another_origin(headers, host):
                raise ApiError(403, "this service has no API key and refuses other web pages: set LORAREC_API_KEY")
        elif not is_open:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key):
                raise ApiError(401, "missing or wrong API key: send the header Authorization: Bearer KEY")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > MAX_BODY:
            raise _too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                return await _read(receive)
        except TimeoutError:
            message = f"the body did not arrive in {self._body_seconds:g} s: send less at once, or faster"
            raise ApiError(408, message, headers={"Connection": "close"}) from None


def _of_another_origin(headers: dict[bytes, bytes], host: str) -> bool:
    """Whether a browser says that a page of another origin sends the request."""
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
        return True
    return headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")


def _too_large() -> ApiError:
    return ApiError(413, f"the body is larger than {MAX_BODY} bytes: send less at once")


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def check_json(body: bytes) -> None:
    """Refuse a body that is expensive to parse, in time that is linear in its length.

    It runs on the event loop, so all but the sum over at most `2 * MAX_VALUES` brackets is done by functions of bytes:
    a mebibyte takes a few milliseconds.

    Raises:
        Problem: the body is not UTF-8, or its JSON is nested too deep or has too many values.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8: send JSON in UTF-8") from None
    if b"\0" in body:  # JSON in UTF-16, in which the brackets could not be counted
        raise ApiError(400, "the body is not UTF-8: send JSON in UTF-8")
    # Backslashes are pairs from the left, so what is left of `\"` after `\\` is gone is an escaped quote.
    quoted = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    too_many = ApiError(
        400, f"the JSON has more than {MAX_VALUES} values or {MAX_MEMBERS} members: no request needs that"
    )
    if quoted.count(b'"') > 2 * (MAX_VALUES + MAX_MEMBERS):
        raise too_many
    outside = b"".join(quoted.split(b'"')[::2])
    brackets = outside.translate(None, _NOT_BRACKETS)
    if outside.count(b",") > MAX_VALUES or outside.count(b":") > MAX_MEMBERS or len(brackets) > 2 * MAX_VALUES:
        raise too_many
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ApiError(400, f"the JSON is nested deeper than {MAX_DEPTH} levels: no request needs that")


def _replayed(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def answer(send: Send, problem: ApiError) -> None:
    """Send a problem as the whole answer."""
    body = json.dumps(problem.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **problem.headers}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # No `Connection: close`: the rest of a body may be under way, and a reset would reach the client before the answer.
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class MetricsMiddleware:
    """ASGI middleware that counts answers and their time, by the API's paths (never by what a client made up)."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            route: Any = scope.get("route")
            path = getattr(route, "path", "other")
            method = scope["method"] if route and scope["method"] in METHODS else "other"
            self._metrics.requests.labels(method, path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)

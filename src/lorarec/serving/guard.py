"""What every request passes before it is read: key, host, size and depth; and what is counted about each."""

import hmac
import json
import re
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorarec.serving.metrics import Metrics
from lorarec.serving.page import FILES
from lorarec.serving.problems import Problem

MAX_BODY = 1 << 20
MAX_DEPTH = 16
#: Answered without a key.
OPEN = ("/healthz", *FILES)
LOCAL = ("127.0.0.1", "localhost", "[::1]")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class Guard:
    """ASGI middleware that refuses requests before anything in them is parsed.

    With a key, a request needs `Authorization: Bearer KEY`. Without one the service is for this machine alone: the Host
    must be local, so that a web page cannot reach it under a name of its own (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self.app = app
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            headers = dict(scope["headers"])
            self._authorise(scope["path"], headers)
            body = await _body(headers, receive)
            _check_json(body)
        except Problem as problem:
            await answer(send, problem)
            return
        await self.app(scope, _replayed(body, receive), send)

    def _authorise(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._key is None:
            host = headers.get(b"host", b"").decode("latin-1")
            if re.sub(r":\d*$", "", host).lower() not in LOCAL:
                raise Problem(421, "this service has no API key and answers to localhost only: set LORAREC_API_KEY")
        elif path not in OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key):
                raise Problem(401, "missing or wrong API key: send the header Authorization: Bearer KEY")


async def _body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    too_large = Problem(413, f"the body is larger than {MAX_BODY} bytes: send less at once")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise too_large
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise too_large
        if not message.get("more_body", False):
            return body


def _check_json(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8: send JSON in UTF-8") from None
    if b"\0" in body:  # JSON in UTF-16, in which the brackets could not be counted
        raise Problem(400, "the body is not UTF-8: send JSON in UTF-8")
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise Problem(400, f"the JSON is nested deeper than {MAX_DEPTH} levels: no request needs that")


def _replayed(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def answer(send: Send, problem: Problem) -> None:
    """Send a problem as the whole answer."""
    body = json.dumps(problem.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **problem.headers}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # No `Connection: close`: the rest of a body may be under way, and a reset would reach the client before the answer.
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class Measure:
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
            self._metrics.requests.labels(scope["method"] if route else "other", path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - began)

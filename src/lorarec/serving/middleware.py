"""Middleware that authenticates and limits requests before they are parsed, and that counts responses."""

import asyncio
import json
import re
import time
from itertools import accumulate
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorarec.serving import tracing
from lorarec.serving.errors import PROBLEM, ApiError
from lorarec.serving.http_config import LOCAL_HOSTS
from lorarec.serving.keys import ApiKey, ApiKeys
from lorarec.serving.logs import log_request
from lorarec.serving.metrics import Metrics, recorded_stages
from lorarec.serving.page import FILES
from lorarec.serving.request_facts import record_key_name, recorded_facts
from lorarec.serving.route_roles import find_route, required_role

#: Maximum number of bytes of a body.
MAX_BODY = 1 << 20
#: Limits on the JSON of a body, which no valid request reaches; they bound the time to parse and validate it.
MAX_DEPTH = 16
MAX_VALUES = 25_000
MAX_MEMBERS = 5_000
#: Seconds that a request's body may take to arrive.
BODY_SECONDS = 20.0
#: Paths that need no API key and accept GET and HEAD only.
PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", *FILES)
#: Methods that become labels of metrics; a client can make up others.
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DEPTH_CHANGES = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class AuthMiddleware:
    """ASGI middleware that authenticates and limits requests before their content is parsed.

    With keys, a request must have the header `Authorization: Bearer KEY`, with a key that has the role of the route.
    Without a key, only this machine may use the service: the Host header must be local, so that a web page cannot reach
    the service under its own name (DNS rebinding), and requests of web pages of other origins are refused. Public paths
    accept GET and HEAD only, and no body.

    Args:
        app: ASGI application.
        keys: API keys; if None, there are none.
        body_seconds: Seconds that a body may take to arrive.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys | None, body_seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self._keys = keys if keys is not None and keys.required else None
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        application: Any = scope.get("app")
        path, has_method = find_route(application.routes if application else (), scope)
        is_public = path in PUBLIC_PATHS
        try:
            if is_public and scope["method"] not in ("GET", "HEAD"):
                raise ApiError(405, "this path accepts GET and HEAD only", headers={"Allow": "GET, HEAD"})
            if self._keys is None:
                _refuse_other_hosts(headers, is_public)
            elif not is_public:
                key = _authenticate(headers, self._keys)
                record_key_name(key.name)
                if path is not None and has_method:
                    _authorize(key, scope["method"], path)
            if not is_public:
                _refuse_coded(headers)
            body = b"" if is_public else await self._read_body(headers, receive)
            check_json(body)
        except ApiError as error:
            await send_error(send, error)
            return
        await self.app(scope, _replay(body, receive), send)

    async def _read_body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > MAX_BODY:
            raise _body_too_large()
        try:
            async with asyncio.timeout(self._body_seconds):
                return await _receive_body(receive)
        except TimeoutError:
            message = f"the body did not arrive in {self._body_seconds:g} s: send less at once, or faster"
            raise ApiError(408, message, headers={"Connection": "close"}) from None


def _refuse_other_hosts(headers: dict[bytes, bytes], is_public: bool) -> None:
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if re.sub(r":\d*$", "", host) not in LOCAL_HOSTS:
        raise ApiError(421, "this service has no API key and is available on localhost only: set LORAREC_API_KEY")
    if not is_public and _is_cross_origin(headers, host):
        raise ApiError(403, "this service has no API key and refuses other web pages: set LORAREC_API_KEY")


def _authenticate(headers: dict[bytes, bytes], keys: ApiKeys) -> ApiKey:
    scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
    key = keys.find(sent) if scheme.lower() == b"bearer" else None
    if key is None:
        raise ApiError(401, "missing or wrong API key: send the header Authorization: Bearer KEY")
    return key


def _authorize(key: ApiKey, method: str, path: str) -> None:
    role = required_role(method, path)
    if not key.has_role(role):
        raise ApiError(403, f"the API key {key.name!r} lacks the role {role!r}: use a key that has it")


def _is_cross_origin(headers: dict[bytes, bytes], host: str) -> bool:
    """Return whether the browser's headers say that a web page of another origin sends the request."""
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
        return True
    return headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")


def _refuse_coded(headers: dict[bytes, bytes]) -> None:
    """Refuse a compressed body: a small one can be gigabytes when it is read."""
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        message = "the body has a Content-Encoding: send it uncompressed, without this header"
        raise ApiError(415, message, headers={"Accept-Encoding": "identity"})


def _body_too_large() -> ApiError:
    return ApiError(413, f"the body is larger than {MAX_BODY} bytes: send less at once")


async def _receive_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the body ended early")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _body_too_large()
        if not message.get("more_body", False):
            return bytes(body)


def check_json(body: bytes) -> None:
    """Refuse a body that would be expensive to parse, in time that is linear in its length.

    The check runs on the event loop. Only the sum over at most `2 * MAX_VALUES` brackets is a loop in Python; the rest
    is done by methods of bytes, so a mebibyte takes a few milliseconds.

    Raises:
        ApiError: 400, if the body is not UTF-8, or its JSON is nested too deeply or has too many values.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8: send JSON in UTF-8") from None
    if b"\0" in body:  # JSON in UTF-16, whose brackets cannot be counted
        raise ApiError(400, "the body is not UTF-8: send JSON in UTF-8")
    # Backslashes pair up from the left, so after all `\\` are removed, each `\"` that remains is an escaped quote.
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
    if max(accumulate(map(_DEPTH_CHANGES.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ApiError(400, f"the JSON is nested deeper than {MAX_DEPTH} levels: no request needs that")


def _replay(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def send_error(send: Send, error: ApiError) -> None:
    """Send an error as the whole response."""
    body = json.dumps(error.body).encode()
    headers = {"content-type": PROBLEM, "content-length": str(len(body)), **error.headers}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # With `Connection: close`, a client that still sends its body would see a reset before the response.
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class MetricsMiddleware:
    """ASGI middleware that counts responses and their durations by path of the API, and logs them if that is turned on.

    Unknown paths share one label, and so do made-up methods, so that clients cannot create labels. Requests that are
    refused before they reach their route, such as those without a key, count for the path of this route.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        began = time.perf_counter()

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with recorded_stages() as stages, recorded_facts() as facts:
            try:
                await self.app(scope, receive, record_status)
            finally:
                path = _route_path(scope) or "other"
                method = scope["method"] if scope["method"] in METHODS else "other"
                ended = time.perf_counter()
                seconds = ended - began
                self._metrics.add_response(method, path, status, seconds, facts.variant)
                if tracing.tracer is not None:
                    facts.trace_id = tracing.tracer.record(scope, method, path, status, (began, ended), stages)
                log_request(method, path, status, seconds, stages, facts)


def _route_path(scope: Scope) -> str | None:
    """Return the path of the route of a request as the API describes it; None if there is no such route."""
    route, application = scope.get("route"), scope.get("app")
    if route is not None:
        return getattr(route, "path", None)
    return find_route(application.routes, scope)[0] if application else None

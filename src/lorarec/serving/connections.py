"""HTTP connections with deadlines for slow clients and a limit on their number."""

import asyncio
import json
import sys
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from lorarec.serving.errors import PROBLEM, ApiError
from lorarec.serving.http_config import HttpConfig

#: Maximum number of bytes of a request line with its headers.
MAX_HEAD = 16 << 10
#: Maximum number of chunks of a chunked body; each takes about 15 microseconds.
MAX_CHUNKS = 4096
#: Number of bytes that are read at once; it limits how long one client can delay the others to a few milliseconds.
READ_SIZE = 4 << 10
#: Number of connections that the operating system accepts before the service does.
BACKLOG = 1024
#: Maximum number of open connections, if the limit on file descriptors allows them.
MAX_CONNECTIONS = 1000


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on the number of connections and on how long the service waits for a client.

    Attributes:
        connections: Maximum number of open connections; beyond it, the one that the service has waited for longest is
            closed.
        head: Seconds for the request line and headers, from the moment that a request can be sent.
        body: Seconds for a body, even if the response has been sent already.
        send: Seconds in which the client must receive the response.
    """

    connections: int = MAX_CONNECTIONS
    head: float = 10.0
    body: float = 30.0
    send: float = 60.0


def connections_allowed() -> int:
    """Return the number of connections that the file descriptors of this process allow, at most `MAX_CONNECTIONS`.

    Half of the descriptors are left for files and the database.
    """
    if sys.platform == "win32":  # Windows does not limit sockets by file descriptors
        return MAX_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 2))


class ServerConfig(uvicorn.Config):
    """Uvicorn's configuration with limits on the connections.

    Args:
        app: ASGI application.
        limits: Limits on the connections.
        grace: Seconds that unfinished requests get after a signal.
        config: Options of the HTTP server.
    """

    def __init__(self, app: FastAPI, limits: ConnectionLimits, grace: float, config: HttpConfig) -> None:
        # Uvicorn's other event loops and parsers do not support these limits.
        # The backlog is the number of connections that asyncio accepts before it serves the open ones; it must be small
        # enough not to run out of file descriptors.
        backlog = max(1, limits.connections // 8)
        super().__init__(
            app,
            loop="asyncio",
            http=Connection,
            ws="none",
            backlog=backlog,
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=grace,  # type: ignore[arg-type]
            server_header=False,
            forwarded_allow_ips=config.forwarded_allow_ips,
            ssl_certfile=config.ssl_certfile,
            ssl_keyfile=config.ssl_keyfile,
            ssl_keyfile_password=config.ssl_keyfile_password,
        )
        self.limits = limits


class _HttpConnection(h11.Connection):
    """HTTP/1.1 connection that refuses bodies with too many chunks and bodies whose length is given in two ways.

    With two lengths, a proxy in front of the service could take a part of the body for another request.

    Attributes:
        refusal: What is wrong with a request that cannot be read.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD)
        self._chunks = 0
        self.refusal = ApiError(400, "the request is not valid HTTP/1.1")

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                message = f"the request line and headers are larger than {MAX_HEAD} bytes: send shorter ones"
                self.refusal = ApiError(431, message)
            raise
        if isinstance(event, h11.Request):
            self._chunks = 0
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise self._refuse(400, "the request has both Content-Length and Transfer-Encoding: send one of them")
        elif isinstance(event, h11.Data) and event.chunk_end:
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise self._refuse(413, f"the body has more than {MAX_CHUNKS} chunks: send larger ones")
        return event

    def _refuse(self, status: int, message: str) -> h11.RemoteProtocolError:
        self.refusal = ApiError(status, message)
        return h11.RemoteProtocolError(message)


class Connection(H11Protocol):
    """Uvicorn's HTTP/1.1 protocol with the limits of a `ServerConfig`."""

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = self._http = _HttpConnection()
        self._limits = config.limits
        self._state: tuple[str | None, RequestResponseCycle | None] = ("head", None)
        self._since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.max_size = READ_SIZE  # type: ignore[attr-defined]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._make_room()
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # a response has been sent already
            self.transport.abort()
            return
        refusal = self._http.refusal
        body = json.dumps(refusal.body).encode()
        headers = {"Content-Type": PROBLEM, "Content-Length": str(len(body)), "Connection": "close"}
        phrase = HTTPStatus(refusal.status).phrase.encode()
        head = h11.Response(status_code=refusal.status, headers=list(headers.items()), reason=phrase)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False  # there is no other protocol; uvicorn would log advice about libraries for WebSockets

    def shutdown(self) -> None:
        self._limits = replace(self._limits, head=1.0, body=1.0, send=5.0)
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            self.transport.abort()

    def _active_limit(self) -> str | None:
        """Return the name of the limit that applies now; None while the service prepares a response."""
        if self.transport.get_write_buffer_size():
            return "send"
        if self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
            return "head"
        return "body" if self.cycle.more_body else None

    def _waiting_time(self) -> float:
        """Return the seconds that the service has waited for the client, since the active limit began to apply."""
        now, state = self.loop.time(), (self._active_limit(), self.cycle)
        if state != self._state or state[0] is None:
            self._state, self._since = state, now
        return now - self._since

    def _check(self) -> None:
        waited, (limit, _) = self._waiting_time(), self._state
        if limit is not None and waited > getattr(self._limits, limit):
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(1, self._check)

    def _make_room(self) -> None:
        """Close the connection that the service has waited for longest."""
        waiting = [
            each for each in self.connections if isinstance(each, Connection) and each._active_limit() is not None
        ]
        longest = max(waiting, key=Connection._waiting_time)
        self.connections.discard(longest)
        longest.transport.abort()

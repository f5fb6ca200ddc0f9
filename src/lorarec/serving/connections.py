"""HTTP connections with deadlines for silent and slow clients, and a limit on their number."""

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

#: Bytes of a request's line and headers.
MAX_HEAD = 16 << 10
#: Chunks of a body that is sent in chunks; each costs some 15 microseconds.
MAX_CHUNKS = 4096
#: Bytes read at once, so that what one client sends keeps the others waiting for a few milliseconds.
READ_SIZE = 4 << 10
#: Connections that the system accepts for the service before the service does.
BACKLOG = 1024
#: Open connections, where the limit of file descriptors allows them.
MAX_CONNECTIONS = 1000


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections are open, and how long each may keep the service waiting.

    Attributes:
        connections: open ones at most; beyond, the one that has kept the service waiting longest is closed.
        head: seconds for a request's line and headers, from the moment a request can be sent.
        body: seconds for a body, also of a request that has its answer already.
        send: seconds in which a client must take what it was sent.
    """

    connections: int = MAX_CONNECTIONS
    head: float = 10.0
    body: float = 30.0
    send: float = 60.0


def connections_allowed() -> int:
    """Half of this process's file descriptors, at most `MAX_CONNECTIONS`: the rest is for files and the database."""
    if sys.platform == "win32":  # it limits neither files nor sockets by descriptors
        return MAX_CONNECTIONS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 2))


class ServerConfig(uvicorn.Config):
    """Uvicorn's configuration, with connections that have limits."""

    def __init__(self, app: Any, limits: ConnectionLimits, **options: Any) -> None:
        # Uvicorn's other loops and parsers, where they are installed, do not have these limits.
        # The backlog is how many connections asyncio accepts before it looks at those it has: too few to run out of
        # file descriptors.
        backlog = max(1, limits.connections // 8)
        super().__init__(app, loop="asyncio", http=Connection, ws="none", backlog=backlog, **options)
        self.limits = limits


class _Http(h11.Connection):
    """HTTP/1.1 that refuses bodies of very many chunks, and bodies whose length is given in two ways.

    A proxy in front of the service could read the other length, and take a part of the body for a request.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD)
        self._chunks = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = 0
            if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        elif isinstance(event, h11.Data) and event.chunk_end:
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise h11.RemoteProtocolError(f"more than {MAX_CHUNKS} chunks")
        return event


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
        self.conn = _Http()
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
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # the request has its answer already
            self.transport.abort()

    def shutdown(self) -> None:
        self._limits = replace(self._limits, head=1.0, body=1.0, send=5.0)
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            self.transport.abort()

    def _waits_for(self) -> str | None:
        """The limit that holds now; None while the service works on an answer."""
        if self.transport.get_write_buffer_size():
            return "send"
        if self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body):
            return "head"
        return "body" if self.cycle.more_body else None

    def _waited(self) -> float:
        """Seconds that this connection has kept the service waiting for one thing."""
        now, state = self.loop.time(), (self._waits_for(), self.cycle)
        if state != self._state or state[0] is None:
            self._state, self._since = state, now
        return now - self._since

    def _check(self) -> None:
        waited, (awaited, _) = self._waited(), self._state
        if awaited is not None and waited > getattr(self._limits, awaited):
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(1, self._check)

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, Connection) and one._waits_for() is not None]
        longest = max(others, key=Connection._waited)
        self.connections.discard(longest)
        longest.transport.abort()

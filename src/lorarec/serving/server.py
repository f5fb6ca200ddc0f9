"""The HTTP server, which runs the service in this process until a signal stops it."""

import asyncio
import gc
import os
import socket
import threading
from types import FrameType

import uvicorn

from lorarec.errors import LorarecError
from lorarec.serving.app import create_app
from lorarec.serving.connections import BACKLOG, ConnectionLimits, ServerConfig, connections_allowed
from lorarec.serving.http_config import HttpConfig
from lorarec.serving.logs import configure_logging
from lorarec.serving.service import STOP_SECONDS, Service
from lorarec.serving.tls import CertificateReloader
from lorarec.serving.tracing import configure_tracing

#: Seconds that unfinished requests get after SIGTERM or Ctrl+C.
GRACE = 20.0


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; port 0 is any free port.

    Raises:
        LorarecError: If the address is in use or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small responses at once (TCP_NODELAY) only if the socket names its protocol; otherwise they wait for
    # 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), port))
    except OSError as error:
        bound.close()
        raise LorarecError(
            f"cannot listen on {host}:{port}: {error.strerror}: change option port or option host"
        ) from error
    return bound


class Server(uvicorn.Server):
    """Uvicorn's server, whose process ends in time after a signal even if a thread hangs.

    Args:
        service: Service that answers the requests.
        key: API key with all roles, or None.
        limits: Limits on the connections; if None, as many are open as the file descriptors of this process allow.
        grace: Seconds that unfinished requests get after a signal.
        config: Options of the HTTP server; the default ones if None.
    """

    def __init__(
        self,
        service: Service,
        key: str | None,
        limits: ConnectionLimits | None = None,
        grace: float = GRACE,
        config: HttpConfig | None = None,
    ) -> None:
        limits = limits or ConnectionLimits(connections_allowed())
        config = config or HttpConfig()
        super().__init__(ServerConfig(create_app(service, key, config), limits, grace, config))
        self._exit_seconds = grace + STOP_SECONDS + 2
        self._http_config = config
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or ():
            bound.listen(BACKLOG)
        if self.config.ssl is not None:
            self._watching = asyncio.create_task(CertificateReloader(self.config.ssl, self._http_config).watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            timer = threading.Timer(self._exit_seconds, os._exit, [128 + sig])
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)


def serve(
    service: Service,
    bound: socket.socket,
    key: str | None,
    grace: float = GRACE,
    log_requests: bool = False,
    config: HttpConfig | None = None,
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        service: Service that answers the requests.
        bound: Socket of `listen`.
        key: API key with all roles, or None; without any key only local hosts are answered.
        grace: Seconds that unfinished requests get after the signal.
        log_requests: Whether to write a line of JSON for each request to standard output.
        config: Options of the HTTP server; the default ones if None.
    """
    configure_logging(log_requests)
    configure_tracing()
    # A garbage collection over all modules and the model would block all requests for up to a second.
    gc.collect()
    gc.freeze()
    Server(service, key, grace=grace, config=config).run(sockets=[bound])

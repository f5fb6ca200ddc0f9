"""Runs the service in this process until it is told to stop."""

import gc
import os
import socket
import threading
from types import FrameType

import uvicorn

from lorarec.errors import LorarecError
from lorarec.serving.app import create_app
from lorarec.serving.connections import BACKLOG, ConnectionLimits, ServerConfig, connections_allowed
from lorarec.serving.logs import configure_logging
from lorarec.serving.middleware import LOCAL
from lorarec.serving.service import STOP_SECONDS, Service

#: Seconds that requests under way get to finish after SIGTERM or Ctrl+C.
GRACE = 20.0


def require_key(host: str, key: str | None) -> None:
    """Refuse to listen to other machines without a key.

    Raises:
        LorarecError: `host` is no local one and there is no key, or the key is empty.
    """
    if key is not None and not key.strip():
        raise LorarecError("LORAREC_API_KEY is empty: set a long random text, or unset it")
    if key is None and host not in (*LOCAL, "::1"):
        raise LorarecError(f"--host {host} lets other machines in: set LORAREC_API_KEY to a long random text first")


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 is any free one.

    Raises:
        LorarecError: the address is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once (TCP_NODELAY) only where a socket names its protocol; others wait 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), port))
    except OSError as error:
        bound.close()
        raise LorarecError(
            f"cannot listen on {host}:{port}: {error.strerror}: choose another --port or --host"
        ) from error
    return bound


class Server(uvicorn.Server):
    """Uvicorn's server, whose process ends in time after a signal even where a thread never does.

    Args:
        limits: of the connections; those that this process's file descriptors allow when None.
        grace: seconds that requests under way get to finish after a signal.
    """

    def __init__(
        self, service: Service, key: str | None, limits: ConnectionLimits | None = None, grace: float = GRACE
    ) -> None:
        config = ServerConfig(
            create_app(service, key),
            limits or ConnectionLimits(connections_allowed()),
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=grace,
            server_header=False,
        )
        super().__init__(config)
        self._latest_end = grace + STOP_SECONDS + 2

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or ():
            bound.listen(BACKLOG)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            end = threading.Timer(self._latest_end, os._exit, [128 + sig])
            end.daemon = True
            end.start()
        super().handle_exit(sig, frame)


def serve(service: Service, bound: socket.socket, key: str | None, grace: float = GRACE) -> None:
    """Answer requests until SIGTERM or SIGINT; those under way get `grace` seconds to finish."""
    configure_logging()
    # A collection that goes through all modules and the model takes up to a second, in which nobody is answered.
    gc.collect()
    gc.freeze()
    Server(service, key, grace=grace).run(sockets=[bound])

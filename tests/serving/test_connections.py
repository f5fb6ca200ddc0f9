"""Clients that send nothing, half of something, or too much, to a server in a process with few file descriptors."""

import asyncio
import http.client
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lorarec.serving.connections import MAX_CHUNKS, MAX_HEAD, ConnectionLimits
from lorarec.serving.logs import RateLimit
from lorarec.serving.middleware import MAX_BODY, AuthMiddleware
from lorarec.serving.server import Server, listen
from lorarec.serving.service import Service

HALF_HEAD = b"GET / HTTP/1.1\r\nHo"
POST = b"POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HALF_BODY = POST + b"Content-Length: 1000000\r\n\r\n" + b" " * 1000
SILENT = b""
WEIGHTS = b'{"adapter":{' + b",".join(b'"k%d":"x"' % number for number in range(4000))
QUOTES = b'"' + b'\\"' * (MAX_BODY // 2 - 1)


@pytest.fixture(scope="module")
def small(serve_options: list[str], started: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that may open 256 files."""
    database = tmp_path_factory.mktemp("small") / "histories.db"
    with started([*serve_options, "--db", str(database)], descriptors=256) as (server,):
        yield server


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def wait_until_closed(*connections: socket.socket) -> None:
    """Wait until the server has closed all connections."""
    began = time.monotonic()
    while not all(map(is_closed, connections)):
        assert time.monotonic() - began < 20
        time.sleep(0.1)


@contextmanager
def measured(url: str) -> Iterator[list[float]]:
    """Measure the response times of /healthz in seconds from before what is tested to its end."""
    found: list[float] = []
    first, end = threading.Event(), threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while not end.is_set():
                began = time.perf_counter()
                assert client.get("/healthz").status_code == 200
                found.append(time.perf_counter() - began)
                first.set()
                time.sleep(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert first.wait(60)
        yield found
    finally:
        end.set()
        thread.join()


def check_answered(found: list[float]) -> None:
    """Check that responses came all the time: none as late as from a service that hangs, also on a busy machine."""
    assert found
    assert max(found) < 10


def test_more_silent_clients_than_descriptors(small: Any) -> None:
    with measured(small.url) as found:
        clients = []
        for number in range(400):
            clients.append(connect(small.url))
            clients[-1].sendall((SILENT, HALF_HEAD, HALF_BODY)[number % 3])
        began = time.monotonic()
        while sum(map(is_closed, clients)) <= 250 or len(found) <= 10:
            assert time.monotonic() - began < 20
            time.sleep(0.1)
        assert len(os.listdir(f"/proc/{small.process.pid}/fd")) < 200
    for client in clients:
        client.close()
    check_answered(found)
    assert small.log.stat().st_size < 20_000


def test_silent_clients_are_closed_in_time(small: Any) -> None:
    with connect(small.url) as silent, connect(small.url) as half, connect(small.url) as trickling:
        half.sendall(HALF_HEAD)
        trickling.sendall(HALF_HEAD)
        began = time.monotonic()
        while not all(map(is_closed, (silent, half, trickling))):
            assert time.monotonic() - began < 20
            with suppress(ConnectionError):
                trickling.send(b"o")
            time.sleep(0.2)


@pytest.mark.parametrize("size", [1 << 10, 60_000, MAX_BODY])
def test_hostile_bodies_keep_nobody_waiting(small: Any, size: int) -> None:
    with measured(small.url) as found, httpx2.Client(base_url=small.url, timeout=60) as client:
        for path, statuses in (("/", {405}), ("/healthz", {405}), ("/v1/rank", {400, 422})):
            for body in (QUOTES[:size], b"[" * size, b'{"' + b"a" * (size - 2), b"\\" * size, WEIGHTS[:size] + b"}}"):
                answer = client.post(path, content=body, headers={"content-type": "application/json"})
                assert answer.status_code in statuses
        time.sleep(0.2)
    check_answered(found)


def test_bodies_in_chunks(small: Any) -> None:
    """A body of a few chunks is read; one of too many is refused."""
    with httpx2.Client(base_url=small.url, timeout=60) as client:

        def chunks() -> Iterator[bytes]:
            yield from (b'{"history": ["x01"], ', b'"candidates": ["x02"]}')

        headers = {"content-type": "application/json"}
        assert client.post("/v1/rank", content=chunks(), headers=headers).status_code == 200
    with measured(small.url) as found, connect(small.url) as many, connect(small.url) as refused:
        many.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * (MAX_CHUNKS + 1))
        assert many.recv(100).startswith(b"HTTP/1.1 413 ")
        head = POST.replace(b"/v1/rank", b"/") + b"Transfer-Encoding: chunked\r\n\r\n"
        refused.sendall(head)
        assert refused.recv(100).startswith(b"HTTP/1.1 405 ")
        with suppress(BlockingIOError, ConnectionError):
            for _ in range(1000):
                refused.sendall(b"1\r\n \r\n" * 1000)
                time.sleep(0.001)
        wait_until_closed(refused)
    check_answered(found)


def test_bodies_that_lie_about_their_length(small: Any) -> None:
    body = b'{"history": ["x01"], "candidates": ["x02"]}'
    with connect(small.url) as short, connect(small.url) as long, connect(small.url) as both:
        short.sendall(POST + b"Content-Length: %d\r\n\r\n" % (len(body) - 10) + body)
        assert short.recv(1000).startswith(b"HTTP/1.1 400 ")
        long.sendall(POST + b"Content-Length: %d\r\n\r\n" % (len(body) + 10) + body)
        long.shutdown(socket.SHUT_WR)
        long.recv(1000)
        assert is_closed(long)
        both.sendall(POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert both.recv(1000).split()[1] in (b"400", b"422")
    assert httpx2.get(f"{small.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        (b"GET /livez\r\n\r\n", 400, "the request is not valid HTTP/1.1"),
        (b"GET /" + b"a" * 4 * MAX_HEAD + b" HTTP/1.1\r\n", 431, "are larger than 16384 bytes"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 4 * MAX_HEAD, 431, "are larger than 16384 bytes"),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "both Content-Length and Transfer-"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * (MAX_CHUNKS + 1), 413, "than 4096 chunks"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_reason(small: Any, request_: bytes, status: int, detail: str) -> None:
    with connect(small.url) as connection:
        with suppress(ConnectionError):  # it may be refused before all is sent
            connection.sendall(request_)
        answer = b""
        with suppress(ConnectionError):  # what it did not read makes it reset the connection at the end
            while part := connection.recv(10_000):
                answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == status
    assert detail in problem["detail"]


def test_a_request_for_another_protocol_is_answered_as_any_other(small: Any) -> None:
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    assert httpx2.get(f"{small.url}/livez", headers=headers).status_code == 200
    assert "WebSocket" not in small.log.read_text()


def test_no_part_of_a_body_is_a_request(small: Any) -> None:
    """Bodies of refused requests are skipped by their length, and two lengths are refused."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    refused = POST.replace(b"/v1/rank", b"/livez")
    chunked, length = b"Transfer-Encoding: chunked\r\n", b"Content-Length: %d\r\n" % len(hidden)
    for head, body, statuses in (
        (refused + length, hidden, [b"405", b"200"]),
        (refused + chunked, b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden), [b"405", b"200"]),
        (POST + chunked + length, b"0\r\n\r\n" + hidden, [b"400"]),
        (POST + length + chunked, b"0\r\n\r\n" + hidden, [b"400"]),
    ):
        with connect(small.url) as connection:
            connection.sendall(head + b"\r\n" + body + last)
            answers = connection.makefile("rb").read()
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == statuses


def test_made_up_requests_fill_no_log(small: Any) -> None:
    before = small.log.stat().st_size
    upgrade = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for _ in range(200):
        for sent in (b"\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", upgrade):
            with connect(small.url) as client:
                client.sendall(sent)
                client.recv(1000)
    assert small.log.stat().st_size - before < 10_000


@pytest.fixture
def limited(make_service: Callable[..., Service]) -> Iterator[Callable[..., str]]:
    """Start a server in a thread with four connections and limits in seconds; gives its URL."""
    with ExitStack() as stack:

        def start(**seconds: float) -> str:
            server = Server(make_service(), None, ConnectionLimits(4, **seconds), grace=1)
            bound = listen("127.0.0.1", 0)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            while not server.started:
                time.sleep(0.01)
            return f"http://127.0.0.1:{bound.getsockname()[1]}"

        yield start


def test_each_kind_of_waiting_ends(limited: Callable[..., str]) -> None:
    """Also with an answer that is never read, and a body that goes on after its answer."""
    url = limited(head=1.0, body=1.0, send=1.0)
    with connect(url) as half, connect(url) as unread, connect(url) as answered:
        half.sendall(HALF_BODY)
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        unread.setblocking(False)
        try:
            while True:
                unread.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        except BlockingIOError:
            pass
        answered.sendall(POST.replace(b"/v1/rank", b"/") + b"Content-Length: 1000000\r\n\r\n")
        assert answered.recv(100).startswith(b"HTTP/1.1 405 ")
        wait_until_closed(half, answered, unread)


def test_the_longest_waiting_makes_room(limited: Callable[..., str]) -> None:
    url = limited()
    with httpx2.Client(base_url=url) as client:
        first = [connect(url) for _ in range(4)]
        for one in first[1:]:
            one.sendall(HALF_HEAD)
            time.sleep(0.05)
        assert client.get("/healthz").status_code == 200
        assert [is_closed(one) for one in first] == [True, False, False, False]


def test_a_body_that_trickles_is_ended_with_an_answer() -> None:
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/rank", "headers": [(b"host", b"localhost")]}
    asyncio.run(AuthMiddleware(application, None, body_seconds=0.2)(scope, receive, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_messages_of_one_kind_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr("lorarec.serving.logs.time.monotonic", lambda: clock[0])
    logger, handler = logging.getLogger("tests.bounded"), logging.FileHandler(tmp_path / "log")
    handler.addFilter(RateLimit(limit=3, seconds=60))
    logger.addHandler(handler)
    for number in range(1000):
        logger.warning("client %d left", number)
        logger.warning("no more %s\ndetails %d", "files", number)
    clock[0] = 61
    logger.warning("client %d left", 1000)
    logger.removeHandler(handler)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if line.startswith("client")] == [
        *("client 0 left", "client 1 left", "client 2 left", "client 1000 left (997 more were left out)")
    ]
    assert sum(line.startswith("no more") for line in lines) == 3


def test_a_client_that_keeps_asking_keeps_its_connection(limited: Callable[..., str]) -> None:
    connection = http.client.HTTPConnection(limited(head=2.0).removeprefix("http://"), timeout=60)
    connection.connect()
    used = connection.sock
    for _ in range(8):
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
        assert connection.sock is used
        time.sleep(0.4)
    connection.close()

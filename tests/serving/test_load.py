"""Full queues and clients that disconnect."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.serving.app import create_app
from lorarec.serving.errors import ApiError
from lorarec.serving.service import Service

BODY = {"history": ["x01"], "candidates": ["x02", "x05"], "adapter": "general"}


def sample(service: Service, name: str) -> float:
    found = service.metrics.registry.get_sample_value(name)
    assert found is not None
    return found


def test_beyond_the_queue_is_429_and_nothing_else_is_lost(
    make_service: Callable[..., Service], offline: Any, play: Any
) -> None:
    service = make_service(queue=5)
    expected = offline.scores({"general": 1.0}, None, BODY["history"], BODY["candidates"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        release = threading.Event()
        blocked = asyncio.ensure_future(service.batcher.call(release.wait))
        waiting = [asyncio.ensure_future(client.post("/v1/rank", json=BODY)) for _ in range(5)]
        while sample(service, "lorarec_requests_inside") < 5:
            await asyncio.sleep(0.01)
        refused = await client.post("/v1/rank", json=BODY)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "try again in" in refused.json()["detail"]
        assert (await client.get("/healthz")).status_code == 200
        release.set()
        await blocked
        for answer in await asyncio.gather(*waiting):
            found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
            np.testing.assert_allclose([found[0], found[1]], expected, atol=1e-4)
        assert (await client.post("/v1/rank", json=BODY)).status_code == 200
        assert sample(service, "lorarec_rejected_total") == 1
        assert sample(service, "lorarec_requests_inside") == 0

    play(service, scenario)


def test_requests_of_disconnected_clients_are_dropped(service: Service) -> None:
    async def whole() -> None:
        app = create_app(service)
        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"},
            **{"path": "/v1/rank", "raw_path": b"/v1/rank", "query_string": b"", "root_path": ""},
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        left = asyncio.Event()
        sent: list[Any] = []

        def receiver() -> Callable[[], Any]:
            messages = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]

            async def receive() -> Any:
                if messages:
                    return messages.pop()
                await left.wait()
                return {"type": "http.disconnect"}

            return receive

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.router.lifespan_context(app):
            release = threading.Event()
            blocked = asyncio.ensure_future(service.batcher.call(release.wait))
            asked = [asyncio.ensure_future(app(dict(scope), receiver(), send)) for _ in range(3)]
            while len(service.batcher._queue) < 3:
                await asyncio.sleep(0.01)
            left.set()
            await asyncio.gather(*asked)
            release.set()
            await blocked

    asyncio.run(whole())
    counted = {"method": "POST", "path": "/v1/rank", "status": "499"}
    assert service.metrics.registry.get_sample_value("lorarec_requests_total", counted) == 3
    assert sample(service, "lorarec_dropped_total") == 3
    assert sample(service, "lorarec_batch_size_count") == 0
    assert sample(service, "lorarec_requests_inside") == 0


def test_a_request_that_is_abandoned_in_its_pass_is_counted(
    service: Service, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring, release = threading.Event(), threading.Event()
    threads = service.batcher._threads

    def slow(score: Callable[[Any], Any], requests: Any) -> Any:
        scoring.set()
        release.wait(10)
        return score(requests)

    for thread, score in threads.items():
        monkeypatch.setitem(threads, thread, partial(slow, score))
    with served(service) as url:
        with socket.create_connection(url.removeprefix("http://").split(":")) as connection:
            body = json.dumps(BODY).encode()
            head = "POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert scoring.wait(10)
        began = time.monotonic()
        while not sample(service, "lorarec_dropped_total"):
            assert time.monotonic() - began < 10
            time.sleep(0.01)
        release.set()
        assert httpx2.post(f"{url}/v1/rank", json=BODY).status_code == 200
    assert sample(service, "lorarec_dropped_total") == 1


def test_events_are_stored_while_ranking_is_full(
    make_service: Callable[..., Service], play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both while requests wait for the model, and while they wait for histories."""
    service = make_service(queue=3)
    release = threading.Event()
    read = service.histories.user_history
    events = {"events": [{"user_id": "u01", "item_id": "x29"}]}

    def slow(user: str, latest: int) -> Any:
        release.wait(4)
        return read(user, latest)

    async def scenario(client: httpx2.AsyncClient) -> None:
        blocked = asyncio.ensure_future(service.batcher.call(release.wait))
        waiting = [asyncio.ensure_future(client.post("/v1/rank", json=BODY)) for _ in range(3)]
        while sample(service, "lorarec_requests_inside") < 3:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(service.histories, "user_history", slow)
        stored = {"user_id": "u01", "candidates": ["x02"], "adapter": "general"}
        reading = [asyncio.ensure_future(client.post("/v1/rank", json=stored)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert (await client.post("/v1/rank", json=BODY)).status_code == 429
        assert (await client.post("/v1/rank", json=stored)).status_code == 429
        for _ in range(20):
            assert (await client.post("/v1/events", json=events)).status_code == 200
        release.set()
        await asyncio.gather(blocked, *waiting, *reading)

    play(service, scenario)
    assert service.histories.history("u01", 1) == ["x29"]


def test_abandoned_reads_keep_their_places(make_service: Callable[..., Service], monkeypatch: Any) -> None:
    """Threads that a database holds are no room for further requests, even if their clients have left."""
    service = make_service(queue=2)
    release = threading.Event()
    monkeypatch.setattr(service.histories, "user_history", lambda *_: release.wait(10))

    async def scenario() -> None:
        tasks = [asyncio.ensure_future(service.users.history("u01", 9)) for _ in range(2)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with pytest.raises(ApiError) as refused:
            await service.users.history("u01", 9)
        assert refused.value.status == 429
        release.set()
        monkeypatch.undo()
        async with asyncio.timeout(10):
            while True:
                try:
                    assert len(await service.users.history("u01", 9)) == 6
                    break
                except ApiError:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_large_requests_are_refused_from_the_start(make_service: Callable[..., Service], play: Any) -> None:
    """The speed is known before the first request; the queue never holds more than `max_wait` and one request."""
    service = make_service(max_wait=0.5)
    large = {"history": ["x01"], "candidates": [{"title": f"red {n}"} for n in range(1000)], "adapter": "general"}

    async def scenario(client: httpx2.AsyncClient) -> None:
        release = threading.Event()
        blocked = asyncio.ensure_future(service.batcher.call(release.wait))
        service.batcher._seconds *= 1e4  # a slow model
        answers = [asyncio.ensure_future(client.post("/v1/rank", json=large)) for _ in range(6)]
        done, waiting = await asyncio.wait(answers, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 5:
            more, waiting = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert [answer.result().status_code for answer in done] == [429] * 5
        refused = await client.post("/v1/rank", json=BODY)
        assert (refused.status_code, int(refused.headers["retry-after"]) > 1) == (429, True)
        assert "take longer than 0.5 s" in refused.text
        release.set()
        await blocked
        assert [(await answer).status_code for answer in waiting] == [200]

    play(service, scenario)

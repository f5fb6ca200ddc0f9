"""Full queues and clients that disconnect."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np

from lorarec.serving.app import create_app
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
    assert sample(service, "lorarec_dropped_total") == 3
    assert sample(service, "lorarec_batch_size_count") == 0
    assert sample(service, "lorarec_requests_inside") == 0

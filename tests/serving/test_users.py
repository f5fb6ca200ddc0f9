"""Events that are sent twice, and the export and deletion of all that is stored of a user."""

from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from lorarec.serving.histories import Event
from lorarec.serving.service import Service

STRANGE = ["<i>mallory</i>/?&#%", "a/../b", "/", " ", "ü %2F?#", "x" * 500, "\U0001f600" * 500]


def event(item: str, **fields: Any) -> dict[str, Any]:
    return {"user_id": "u01", "item_id": item, **fields}


def test_another_event_with_the_same_id_is_a_conflict(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        click = event("x29", event_id="click", timestamp=500)
        assert (await client.post("/v1/events", json={"events": [click]})).json() == {"stored": 1, "known": 0}
        for other in (event("x28", event_id="click"), event("x29", event_id="click", timestamp=501)):
            answer = await client.post("/v1/events", json={"events": [event("x01"), other]})
            assert answer.status_code == 409
            assert "events.1.event_id" in answer.text
            assert "with item 'x29' at 500: give this event another id" in answer.text
        assert (await client.post("/v1/events", json={"events": [click]})).json() == {"stored": 0, "known": 1}
        assert service.histories.history("u01", 1) == ["x29"]

    play(service, scenario)


def test_a_request_with_an_idempotency_key_is_stored_once(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        async def send(key: str, *events: dict[str, Any]) -> httpx2.Response:
            return await client.post("/v1/events", json={"events": events}, headers={"Idempotency-Key": key})

        own = event("x27", event_id="own")
        assert (await send("k", event("x29"), own, event("x29"))).json() == {"stored": 3, "known": 0}
        assert (await send("k", event("x29"), own, event("x29"))).json() == {"stored": 0, "known": 3}
        assert (await send("other", event("x29"), own)).json() == {"stored": 1, "known": 1}
        assert (await send("k", event("x28"))).status_code == 409
        assert (await send("k" * 256, event("x28"))).status_code == 422
        assert service.histories.history("u01", 4) == ["x29", "x27", "x29", "x29"]

    play(service, scenario)


@pytest.mark.parametrize("user", STRANGE)
def test_a_user_is_exported_and_deleted(service: Service, play: Any, user: str) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        path = f"/v1/users/{quote(user, safe='')}"
        for answer in (await client.get(path), await client.delete(path)):
            assert answer.status_code == 404
        events = [{"user_id": user, "item_id": "x29", "timestamp": 7, "event_id": "e"}]
        assert (await client.post("/v1/events", json={"events": events})).status_code == 200
        stored = [{"item_id": "x29", "timestamp": 7, "event_id": "e"}]
        assert (await client.get(path)).json() == {"user_id": user, "events": stored, "answers": []}
        assert (await client.delete(path)).json() == {"deleted": 1, "answers": 0}
        assert (await client.get(path)).status_code == 404
        ranked = {"user_id": user, "candidates": ["x01"], "adapter": "general"}
        assert (await client.post("/v1/rank", json=ranked)).status_code == 404

    play(service, scenario)


def test_a_deleted_user_of_the_dataset_is_found_nowhere(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        assert "u03" in (await client.get("/v1/users?query=u0")).json()["users"]
        assert (await client.delete("/v1/users/u03")).json() == {"deleted": 6, "answers": 0}
        found = (await client.get("/v1/users?query=u0")).json()["users"]
        assert found
        assert "u03" not in found
        assert (await client.get("/v1/history?user_id=u03")).status_code == 404

    play(service, scenario)


def test_items_that_another_replica_knows_are_left_out(service: Service, play: Any) -> None:
    """A replica that has started on a larger dataset stores events with its new items."""

    async def scenario(client: httpx2.AsyncClient) -> None:
        service.histories.append([Event("u01", "newer"), Event("u01", "x29"), Event("only", "newer")])
        items = (await client.get("/v1/history?user_id=u01&limit=2")).json()["items"]
        assert [item["item_id"] for item in items][:1] == ["x29"]
        for user, status in (("u01", 200), ("only", 404)):
            ranked = {"user_id": user, "candidates": ["x01"], "adapter": "general"}
            assert (await client.post("/v1/rank", json=ranked)).status_code == status

    play(service, scenario)

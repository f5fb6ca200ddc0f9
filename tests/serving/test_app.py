"""Errors, authentication, metrics and the OpenAPI schema."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lorarec.errors import LorarecError
from lorarec.serving.adapter_schemas import LoadAdapterRequest
from lorarec.serving.middleware import MAX_BODY
from lorarec.serving.schemas import MAX_CANDIDATES, MAX_HISTORY, ExplainRequest, RankRequest, RecommendRequest
from lorarec.serving.service import Service
from lorarec.serving.user_schemas import EventsRequest

GOOD = {"history": ["x01"], "candidates": ["x02", "x03"], "adapter": "general"}


@pytest.mark.parametrize(
    ("change", "status", "field", "message"),
    [
        ({"candidates": ["x02", "nothing"]}, 422, "candidates.1", "'nothing' is not in the catalogue"),
        ({"history": ["nothing"]}, 422, "history.0", "give an id of it"),
        ({"candidates": []}, 422, "candidates", "at least 1"),
        ({"candidates": ["x02"] * (MAX_CANDIDATES + 1)}, 422, "candidates", str(MAX_CANDIDATES)),
        ({"history": ["x02"] * (MAX_HISTORY + 1)}, 422, "history", str(MAX_HISTORY)),
        ({"candidates": [3]}, 422, "candidates.0", "string"),
        ({"candidates": [{"title": ""}]}, 422, "candidates.0.title", "at least 1"),
        ({"candidates": [{"title": "a\ud800"}]}, 422, "candidates.0.title", "valid string"),
        ({"candidates": [{"title": "a\0"}]}, 422, "candidates.0.title", "NUL"),
        ({"user_id": "u01"}, 422, None, "either user_id or history"),
        ({"history": None}, 422, None, "either user_id or history"),
        ({"adapter": "none"}, 404, "adapter", "loaded general"),
        ({"adapter": None}, 422, "adapter", "name an adapter"),
        ({"adapter": {"general": 0.5}}, 422, "adapter", "sum to 1"),
        ({"adapter": {"general": 0.5, "listed": 0.5}}, 422, "adapter", "different values of readout"),
        ({"adapter": {"general": -1}}, 422, "adapter.general", "greater than or equal to 0"),
        ({"adapter": {"\ud800": 1}}, 422, "adapter", "valid string"),
        ({"path": "/etc/passwd"}, 422, "path", "not permitted"),
    ],
)
def test_bad_fields_are_named(
    play_shared: Any, change: dict[str, Any], status: int, field: str | None, message: str
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = json.dumps({**GOOD, **change})
        answer = await client.post("/v1/rank", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        problem = answer.json()
        assert message in problem["detail"]
        if field is not None:
            assert problem["errors"][0]["field"].startswith(field)

    play_shared(scenario)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"history": [],}', 400),
        (b"[" * 10_000, 400),
        (b'{"a":' * 10_000, 400),
        (json.dumps(GOOD | {"adapter": {"general": float("nan")}}).encode(), 400),
        (b'{"history": [], "candidates": ["\xff"]}', 400),
        (json.dumps(GOOD).encode("utf-16"), 400),
        (json.dumps(GOOD).encode("utf-16-le"), 400),
        (b'{"top": ' + b"1" * 5000 + b"}", 400),
        (b" " * (MAX_BODY + 1), 413),
    ],
)
def test_bodies_that_cannot_be_read(play_shared: Any, body: bytes, status: int) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        async def chunks() -> Any:
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]

        for content in (body, chunks()):  # with a Content-Length and without
            answer = await client.post("/v1/rank", content=content, headers={"content-type": "application/json"})
            assert answer.status_code == status, answer.text
            assert answer.json()["detail"]

    play_shared(scenario)


def test_brackets_in_strings_are_no_depth(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = GOOD | {"candidates": [{"title": '[{"\\' * 50}]}
        assert (await client.post("/v1/rank", json=body)).status_code == 200

    play(service, scenario)


def test_key(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for path in ("/v1/adapters", "/metrics", "/openapi.json", "/nothing"):
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": "sécret"},
                {"authorization": "secret"},
            ):
                sent = {name: value.encode() for name, value in headers.items()}
                answer = await client.get(path, headers=sent)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        big = await client.post("/v1/rank", content=b" " * (MAX_BODY + 1))
        assert big.status_code == 401
        assert (await client.get("/healthz")).status_code == 200
        right = {"authorization": "Bearer secret", "host": "shop.example"}
        assert (await client.get("/v1/adapters", headers=right)).status_code == 200
        assert (await client.post("/v1/rank", json=GOOD, headers=right)).status_code == 200

    play(service, scenario, "secret")


def test_the_scheme_has_no_case_and_white_space_is_no_part_of_the_key(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for header in ("Bearer secret", "bearer secret", "BEARER  secret"):
            assert (await client.get("/v1/adapters", headers={"authorization": header})).status_code == 200
        for header in ("Bearersecret", "Basic secret", "Bearer", "Bearer ", "bearer Secret", "Bearer secret secret"):
            assert (await client.get("/v1/adapters", headers={"authorization": header})).status_code == 401

    play(service, scenario, "secret\n")  # as a file holds it


def test_without_a_key_other_hosts_are_refused(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for host, status in (("evil.example", 421), ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:80", 200)):
            assert (await client.get("/v1/adapters", headers={"host": host})).status_code == status

    play(service, scenario)


def test_a_form_of_another_site_is_not_read(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        event = {"events": [{"user_id": "u01", "item_id": "x29"}]}
        answer = await client.post("/v1/events", content=json.dumps(event), headers={"content-type": "text/plain"})
        assert answer.status_code == 415
        assert "x29" not in service.histories.history("u01", 100)

    play(service, scenario)


def test_sql_in_user_ids(service: Service, play: Any) -> None:
    user = "u01'; DROP TABLE lorarec_events; --"

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/recommend", json={"user_id": user, "adapter": "general"})
        assert answer.status_code == 404
        await client.post("/v1/events", json={"events": [{"user_id": user, "item_id": "x01"}]})
        assert service.histories.history(user, 9) == ["x01"]
        assert len(service.histories.history("u01", 9)) == 6

    play(service, scenario)


def test_events_of_unknown_items_store_nothing(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        events = [{"user_id": "a", "item_id": "x01"}, {"user_id": "a", "item_id": "nothing"}]
        answer = await client.post("/v1/events", json={"events": events})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "events.1.item_id")
        assert service.histories.history("a", 9) == []

    play(service, scenario)


def test_database_that_goes_away_is_reported(service: Service, play: Any, tmp_path: Path) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        service.histories.close()
        (tmp_path / "histories.db").rename(tmp_path / "kept.db")
        (tmp_path / "histories.db").mkdir()
        for path, body in {
            "/v1/rank": {"user_id": "u01", "candidates": ["x01"], "adapter": "general"},
            "/v1/events": {"events": [{"user_id": "u01", "item_id": "x01"}]},
        }.items():
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/healthz")).status_code == 503
        assert (await client.post("/v1/rank", json=GOOD)).status_code == 200
        (tmp_path / "histories.db").rmdir()
        (tmp_path / "kept.db").rename(tmp_path / "histories.db")
        assert (await client.get("/healthz")).json() == {
            "status": "ok",
            "database": "ok",
            "adapters": 4,
            "unavailable": 0,
            "fusion": False,
        }

    play(service, scenario)


def test_unknown_paths_and_methods(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for answer in (await client.get("/v1/nothing"), await client.get("/v1/rank")):
            assert answer.status_code in (404, 405)
            assert answer.json()["detail"]

    play(service, scenario)


def test_metrics_count_by_path_of_the_api(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        await client.post("/v1/rank", json=GOOD)
        await client.get("/made-up/1")
        await client.delete("/v1/adapters/made-up")
        text = (await client.get("/metrics")).text
        assert 'lorarec_requests_total{method="POST",path="/v1/rank",status="200"} 1.0' in text
        assert 'path="/v1/adapters/{name}",status="404"' in text
        assert "made-up" not in text
        assert "lorarec_batch_size_count 1.0" in text
        assert "lorarec_adapters 4.0" in text

    play(service, scenario)


def test_every_example_of_the_description_is_valid(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        described = (await client.get("/openapi.json")).json()
        assert set(described["paths"]) == {
            *("/v1/rank", "/v1/recommend", "/v1/explain", "/v1/events", "/v1/adapters", "/v1/adapters/{name}"),
            *("/v1/adapters/{name}/rollback", "/v1/aliases", "/v1/aliases/{alias}", "/v1/batch", "/v1/items/{item_id}"),
            *(
                "/v1/items",
                "/v1/users",
                "/v1/users/{user_id}",
                "/v1/history",
                "/healthz",
                "/livez",
                "/readyz",
                "/metrics",
            ),
            *("/v1/rerank", "/v2/rerank", "/rerank"),
        }
        for model in (RankRequest, RecommendRequest, ExplainRequest, EventsRequest, LoadAdapterRequest):
            examples = described["components"]["schemas"][model.__name__]["examples"]
            assert examples
            for example in examples:
                model.model_validate(example)

    play(service, scenario)


def test_database_and_adapters_folder_must_be_there(make_service: Callable[..., Service], adapters: Path) -> None:
    with pytest.raises(LorarecError, match="no adapter 'nothing' in the adapters folder: it has general, listed"):
        make_service(load=["nothing"])
    shutil.rmtree(adapters)
    with pytest.raises(LorarecError, match="does not exist: give a folder of PEFT folders"):
        make_service()

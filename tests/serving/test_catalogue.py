"""Items added, changed and withdrawn by calls: answers equal those of a service on a dataset with them."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.retrieval.title_source import TitleEmbeddings
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service

NEW = [
    {"item_id": "a/new ?", "title": "red sofa", "columns": {"price": 3, "brand": "Lux", "tags": ["soft"]}},
    {"item_id": "x15b", "title": "violet lamp", "columns": {"stock": True, "size": 1.5}},
]
REQUESTS: list[tuple[str, Any]] = [
    (
        "rank",
        {"history": ["x02", "x15b", "x05"], "candidates": ["x01", "a/new ?", "x29", "x15b"], "adapter": "general"},
    ),
    (
        "rank",
        {"user_id": "u03", "candidates": ["x15b", "x01", "a/new ?"], "adapter": {"general": 0.4, "specific": 0.6}},
    ),
    ("recommend", {"user_id": "u03", "top": 20, "adapter": "specific"}),
    ("recommend", {"history": ["x15b"], "top": 20, "adapter": "listed"}),
    ("recommend", {"user_id": "u05", "adapter": "general", "where": [{"column": "price", "op": "<=", "value": 12}]}),
    (
        "recommend",
        {
            **{"user_id": "u05", "adapter": "general", "top": 9, "at_most": {"brand": 2}},
            "boost": [{"where": {"column": "stock", "op": "=", "value": True}, "add": 2}],
        },
    ),
    ("explain", {"history": ["x02", "x15b", "x05"], "item_id": "a/new ?", "adapter": "general"}),
    ("explain", {"user_id": "u07", "adapter": "general", "deny": ["x29"]}),
    ("rerank", {"query": "red sofa\nviolet lamp", "documents": ["violet lamp", "red lamp"], "model": "general"}),
]


@pytest.fixture
def shop(shop: Dataset) -> Dataset:
    """The shop with further columns of all kinds; `size` holds numbers as text."""
    columns = pl.DataFrame(
        {
            "price": range(10, 40),
            "brand": ["Lux", "Nord", None] * 10,
            "stock": [True, False] * 15,
            "size": ["1", "2.5"] * 15,
            "tags": [["hard"], ["soft", "red"]] * 15,
        }
    )
    return Dataset.from_frames("shop", shop.interactions, shop.items.hstack(columns))


def with_rows(shop: Dataset, *rows: dict[str, Any]) -> Dataset:
    """Return the shop with other rows, or further ones, for some items."""
    changed = pl.DataFrame([dict.fromkeys(shop.items.columns) | row for row in rows], shop.items.schema, orient="row")
    others = shop.items.join(changed, on="item_id", how="anti")
    return Dataset.from_frames("shop", shop.interactions, pl.concat([others, changed]))


@pytest.fixture
def serve(tiny_backbone: Backbone, adapters: Path, tmp_path: Path) -> Callable[..., Service]:
    """Make a service on a dataset; its database has a name."""

    def make(dataset: Dataset, database: str = "one") -> Service:
        url = f"sqlite:///{tmp_path / database}.db"
        return Service(tiny_backbone, dataset, adapters, url, ServiceConfig(wait_ms=0, pool=20))

    return make


async def answers(client: httpx2.AsyncClient) -> list[Any]:
    """Return the answers to many kinds of requests."""
    found = []
    for path, body in REQUESTS:
        answer = await client.post(f"/v1/{path}", json=body, headers={"x-request-id": "same"})
        assert answer.status_code == 200, (path, answer.text)
        found.append(rounded(answer.json()))
    for query in ("", "lamp", "sofa"):
        found.append((await client.get(f"/v1/items?limit=100&query={query}")).json())
    return found


def rounded(value: Any) -> Any:
    """Return JSON whose numbers are rounded."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


def test_added_and_changed_items_are_answered_like_those_of_the_dataset(
    shop: Dataset, serve: Callable[..., Service], play: Any
) -> None:
    added = [{"item_id": each["item_id"], "title": each["title"], **each["columns"]} for each in NEW]
    added[1]["size"] = "1.5"
    chair = shop.items.row(7, named=True) | {"title": "green armchair", "price": 11, "brand": None}
    lamp = shop.items.row(0, named=True) | {"price": 9}

    async def original(client: httpx2.AsyncClient) -> None:
        expected.extend(await answers(client))

    async def called(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/items", json={"items": NEW})).json() == {"added": 2}
        changed = {"title": "green armchair", "columns": {"price": 11, "brand": None}}
        answer = await client.patch("/v1/items/x07", json=changed)
        assert answer.json()["title"] == "green armchair"
        assert (await client.patch("/v1/items/x00", json={"columns": {"price": 9}})).status_code == 200
        assert await answers(client) == expected
        described = (await client.get("/v1/items/a%2Fnew%20%3F")).json()
        columns = {"price": 3, "brand": "Lux", "stock": None, "size": None, "tags": ["soft"]}
        assert described == {"item_id": "a/new ?", "title": "red sofa", "columns": columns, "withdrawn": False}
        stored = await client.post("/v1/events", json={"events": [{"user_id": "u03", "item_id": "x15b"}]})
        assert stored.status_code == 200
        latest = (await client.get("/v1/history?user_id=u03&limit=1")).json()["items"]
        assert latest == [{"item_id": "x15b", "title": "violet lamp"}]
        await client.delete("/v1/users/u03")  # the event would change the answers after a restart
        await client.post("/v1/events", json={"events": events_of(shop, "u03")})

    async def restarted(client: httpx2.AsyncClient) -> None:
        assert await answers(client) == expected

    expected: list[Any] = []
    play(serve(with_rows(shop, *added, chair, lamp), "expected"), original)
    play(serve(shop), called)
    play(serve(shop), restarted)
    # What calls have said wins over a dataset that has the item by now.
    play(serve(with_rows(shop, {**added[0], "title": "other title", "price": 99})), restarted)


def events_of(shop: Dataset, user: str) -> list[dict[str, Any]]:
    rows = shop.interactions.filter(user_id=user).select("user_id", "item_id", "timestamp")
    return list(rows.iter_rows(named=True))


def test_withdrawn_items_are_not_recommended_and_stay_in_histories(
    shop: Dataset, serve: Callable[..., Service], play: Any
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        ranked = {"history": ["x02", "x05"], "candidates": ["x01", "x03"], "adapter": "general"}
        before = (await client.post("/v1/rank", json=ranked)).json()
        body = {"history": ["x02", "x05"], "adapter": "general", "top": 12}
        denied = (await client.post("/v1/recommend", json=body | {"deny": ["x01", "x02", "x29"]})).json()
        for item in ("x01", "x02", "x29"):
            assert (await client.delete(f"/v1/items/{item}")).status_code == 204
            assert (await client.delete(f"/v1/items/{item}")).status_code == 404
            assert (await client.patch(f"/v1/items/{item}", json={"columns": {"price": 1}})).status_code == 404
            assert (await client.get(f"/v1/items/{item}")).json()["withdrawn"]
        assert rounded((await client.post("/v1/recommend", json=body)).json()) == denied
        assert rounded((await client.post("/v1/rank", json=ranked)).json()) == before
        found = (await client.get("/v1/items?limit=100")).json()
        assert found["total"] == 27
        assert not {"x01", "x02", "x29"} & {each["item_id"] for each in found["items"]}
        user = shop.interactions.filter(item_id="x01")["user_id"][0]
        history = (await client.get(f"/v1/history?user_id={user}&limit=100")).json()["items"]
        assert "x01" in {each["item_id"] for each in history}
        back = {"item_id": "x01", "title": "green lamp", "columns": {"price": 5}}
        assert (await client.post("/v1/items", json={"items": [back]})).status_code == 200
        described = (await client.get("/v1/items/x01")).json()
        assert (described["withdrawn"], described["columns"]["price"]) == (False, 5)
        assert (await client.get("/v1/items?limit=100")).json()["total"] == 28

    play(serve(shop), scenario)


WRONG: list[tuple[str, str, Any, int, str]] = [
    ("POST", "", {"items": []}, 422, "items"),
    ("POST", "", {"items": [{"item_id": "x01", "title": "a"}]}, 409, "items.0.item_id"),
    ("POST", "", {"items": [{"item_id": "n", "title": "a"}] * 2}, 409, "items.1.item_id"),
    ("POST", "", {"items": [{"item_id": "n", "title": "  "}]}, 422, "items.0.title"),
    ("POST", "", {"items": [{"item_id": "n", "title": "a", "price": 3}]}, 422, "items.0.price"),
    *(
        ("POST", "", {"items": [{"item_id": "n", "title": "a", "columns": columns}]}, 422, "items.0.columns")
        for columns in (
            *({"price": value} for value in ("3", 3.5, True, [], 2**70)),
            *({"stock": value} for value in (1, "true")),
            *({"size": value} for value in ("large", True, "01")),
            *({"tags": value} for value in ("soft", 3)),
            *({"brand": value} for value in (["Lux"],)),
            *({name: "a"} for name in ("nothing", "title", "item_id")),
        )
    ),
    ("PATCH", "/x01", {"title": ""}, 422, "title"),
    ("PATCH", "/x01", {"columns": {"price": "a"}}, 422, "columns"),
    ("PATCH", "/nothing", {"columns": {"price": 3}}, 404, "item_id"),
    ("DELETE", "/nothing", None, 404, "item_id"),
    ("GET", "/nothing", None, 404, "item_id"),
    ("GET", "/%00", None, 422, "item_id"),
]


def test_wrong_items_are_refused(shop: Dataset, serve: Callable[..., Service], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for method, path, body, status, field in WRONG:
            answer = await client.request(method, f"/v1/items{path}", json=body)
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (status, field), (body, answer.text)
        assert (await client.get("/v1/items?limit=1")).json()["total"] == 30
        assert (await client.head("/v1/items/x01")).status_code == 200
        assert (await client.put("/v1/items/x01", json={})).headers["allow"] == "DELETE, GET, HEAD, PATCH"
        for method, path in (("POST", "/v1/items"), ("PATCH", "/v1/items/x01")):
            headers = {"content-type": "application/json"}
            assert (await client.request(method, path, content=b"{", headers=headers)).status_code == 400
            assert (await client.request(method, path, content=b"{}")).status_code == 415

    play(serve(shop), scenario)


def test_a_refused_request_adds_nothing(shop: Dataset, serve: Callable[..., Service], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        good, bad = {"item_id": "n", "title": "a"}, {"item_id": "m", "title": "a", "columns": {"price": "b"}}
        assert (await client.post("/v1/items", json={"items": [good, bad]})).status_code == 422
        assert (await client.get("/v1/items/n")).status_code == 404
        assert (await client.get("/v1/items?limit=1")).json()["total"] == 30

    play(serve(shop), scenario)


def test_changes_of_other_replicas_are_read(
    shop: Dataset, serve: Callable[..., Service], play: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lorarec.serving.refresher.Refresher.__init__.__defaults__", (0.05,))

    def write(item: str, title: str | None, columns: Any, withdrawn: bool, revision: int) -> None:
        """Store an item as another replica does."""
        with sqlite3.connect(tmp_path / "one.db") as connection:
            row = (item, title, json.dumps(columns), withdrawn, revision)
            connection.execute("INSERT OR REPLACE INTO lorarec_items VALUES (?, ?, ?, ?, ?)", row)
        connection.close()

    async def scenario(client: httpx2.AsyncClient) -> None:
        write("other", "red sofa", {"price": 3, "unknown": 1, "stock": "no"}, False, 1)
        write("x01", None, {}, True, 2)
        write("gone", None, {"price": 3}, False, 3)  # an item that the dataset has no more
        for _ in range(100):
            if (await client.get("/v1/items/x01")).json()["withdrawn"]:
                break
            await asyncio.sleep(0.1)
        described = (await client.get("/v1/items/other")).json()
        assert (described["columns"]["price"], described["columns"]["stock"]) == (3, None)
        assert (await client.get("/v1/items/gone")).status_code == 404
        # An edit here is based on what others have stored meanwhile.
        write("x05", "green vase", {"price": 1}, False, 9)
        assert (await client.patch("/v1/items/x05", json={"columns": {"brand": "Lux"}})).status_code == 200
        described = (await client.get("/v1/items/x05")).json()
        assert (described["title"], described["columns"]["price"]) == ("green vase", 1)
        assert described["columns"]["brand"] == "Lux"

    play(serve(shop), scenario)


def test_an_index_with_a_text_encoder_takes_no_further_titles(
    shop: Dataset, serve: Callable[..., Service], play: Any
) -> None:
    service = serve(shop)
    index = service.catalogue._base.index
    index._titles = TitleEmbeddings(np.ones((len(index.items), 2), np.float32), {})

    async def scenario(client: httpx2.AsyncClient) -> None:
        added = await client.post("/v1/items", json={"items": NEW})
        renamed = await client.patch("/v1/items/x01", json={"title": "a"})
        for answer in (added, renamed):
            assert answer.status_code == 422
            assert "a text encoder embedded" in answer.json()["detail"]
        assert (await client.patch("/v1/items/x01", json={"columns": {"price": 3}})).status_code == 200
        assert (await client.delete("/v1/items/x01")).status_code == 204

    play(service, scenario)

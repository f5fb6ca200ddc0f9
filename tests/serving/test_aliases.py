"""Aliases of adapters and the default adapter: requests by them get the answers of the adapters that they name."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.errors import LorarecError
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service

BODY = {"history": ["x01", "x02"], "candidates": ["x03", "x05", "x29"]}


async def rank(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/rank", json=BODY | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def point(client: httpx2.AsyncClient, alias: str, adapter: str) -> int:
    return (await client.post("/v1/aliases", json={"alias": alias, "adapter": adapter})).status_code


def test_an_alias_is_answered_by_the_adapter_that_it_names(
    make_service: Callable[..., Service], offline: Any, play: Any
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        assert await point(client, "prod", "general") == 200
        by_name = {name: await rank(client, adapter=name) for name in ("general", "specific")}
        assert await rank(client, adapter="prod") == by_name["general"]
        scores = {each["candidate"]: each["score"] for each in by_name["general"]["ranking"]}
        expected = offline.scores({"general": 1.0}, None, BODY["history"], BODY["candidates"])
        np.testing.assert_allclose([scores[place] for place in range(3)], expected, atol=1e-4)
        mixed = await rank(client, adapter={"prod": 0.3, "specific": 0.7})
        assert mixed == await rank(client, adapter={"general": 0.3, "specific": 0.7})
        twice = await client.post("/v1/rank", json=BODY | {"adapter": {"prod": 0.5, "general": 0.5}})
        assert (twice.status_code, twice.json()["errors"][0]["field"]) == (422, "adapter")
        assert await point(client, "prod", "specific") == 200
        assert await rank(client, adapter="prod") == by_name["specific"]
        reranked = await client.post("/v1/rerank", json={"model": "prod", "query": "red lamp", "documents": ["a"]})
        assert reranked.json()["model"] == "specific"
        listed = (await client.get("/v1/adapters")).json()
        assert (listed["aliases"], listed["default"]) == ({"prod": "specific"}, None)
        assert (await client.delete("/v1/aliases/prod")).status_code == 204
        assert (await client.delete("/v1/aliases/prod")).status_code == 404
        assert (await client.post("/v1/rank", json=BODY | {"adapter": "prod"})).status_code == 404

    play(make_service(), scenario)


def test_what_an_alias_names_is_not_unloaded(make_service: Callable[..., Service], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        await point(client, "a/b ?", "general")
        refused = await client.delete("/v1/adapters/general")
        assert refused.status_code == 409
        assert "has the alias 'a/b ?': point it to another adapter, or delete it" in refused.json()["detail"]
        assert (await client.delete("/v1/adapters/specific")).status_code == 204
        await rank(client, adapter="a/b ?")
        # Reloading it, and loading others, changes nothing.
        for name in ("general", "specific"):
            assert (await client.post("/v1/adapters", json={"name": name})).status_code == 200
        await rank(client, adapter="a/b ?")
        for path in ("/v1/adapters/a%2Fb%20%3F", "/v1/adapters/prod"):
            assert (await client.get(path)).status_code == 404
        assert (await client.delete("/v1/aliases/a%2Fb%20%3F")).status_code == 204
        assert (await client.delete("/v1/adapters/general")).status_code == 204

    play(make_service(), scenario)


def test_wrong_aliases_are_refused(make_service: Callable[..., Service], play: Any, adapters: Path) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        async def refused(alias: str, adapter: str, field: str) -> int:
            answer = await client.post("/v1/aliases", json={"alias": alias, "adapter": adapter})
            assert answer.json()["errors"][0]["field"] == field
            return answer.status_code

        assert await refused("listed2", "general", "alias") == 409  # can be loaded
        assert await refused("general", "general", "alias") == 409
        assert await refused("prod", "listed2", "adapter") == 404
        assert await refused("", "general", "alias") == 422
        assert await point(client, "prod", "general") == 200
        assert await refused("live", "prod", "adapter") == 404  # an alias of an alias
        (adapters / "listed2").rename(adapters / "prod")
        answer = await client.post("/v1/adapters", json={"name": "prod"})
        assert (answer.status_code, "is an alias of 'general'" in answer.json()["detail"]) == (409, True)

    service = make_service(load=["general", "specific", "listed"])
    play(service, scenario)
    with pytest.raises(LorarecError, match="adapter prod has the name of an alias of general"):
        make_service()


def test_aliases_survive_a_restart_and_reach_other_replicas(
    make_service: Callable[..., Service], play: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lorarec.serving.refresher.Refresher.__init__.__defaults__", (0.05,))
    service = make_service()
    by_name: dict[str, Any] = {}

    def write(statement: str) -> None:
        """Change the aliases as another replica does."""
        with sqlite3.connect(tmp_path / "histories.db") as connection:
            connection.execute(statement)
        connection.close()

    async def scenario(client: httpx2.AsyncClient) -> None:
        write("INSERT INTO lorarec_aliases VALUES ('prod', 'general')")
        for name in ("general", "specific"):
            write(f"UPDATE lorarec_aliases SET adapter = '{name}'")
            by_name[name] = await rank(client, adapter=name)
            for _ in range(100):
                if service.adapters.names.aliases.get("prod") == name:
                    break
                await asyncio.sleep(0.1)
            assert await rank(client, adapter="prod") == by_name[name]
        write("INSERT INTO lorarec_aliases VALUES ('late', 'listed')")
        assert (await client.delete("/v1/adapters/listed")).status_code == 409  # it is read before

    play(service, scenario)

    async def again(client: httpx2.AsyncClient) -> None:
        assert await rank(client, adapter="prod") == by_name["specific"]
        # The default is an alias here, which is pointed to another adapter at once.
        assert await rank(client) == by_name["specific"]
        assert (await client.delete("/v1/aliases/prod")).status_code == 409
        await point(client, "prod", "general")
        assert await rank(client) == by_name["general"]

    play(make_service(default_adapter="prod"), again)


def test_the_default_answers_requests_that_name_no_adapter(make_service: Callable[..., Service], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        assert await rank(client) == await rank(client, adapter="specific")
        assert (await client.get("/v1/adapters")).json()["default"] == "specific"
        assert (await rank(client, adapter={}))["mixture"] == {}
        refused = await client.delete("/v1/adapters/specific")
        assert refused.status_code == 409
        assert "option default_adapter" in refused.json()["detail"]

    play(make_service(default_adapter="specific"), scenario)


def test_a_default_beside_a_fusion_is_refused(make_fused: Callable[..., Service]) -> None:
    with pytest.raises(LorarecError, match="of no use with a fusion"):
        make_fused(default_adapter="general")


def test_a_wrong_default_is_refused(make_service: Callable[..., Service]) -> None:
    with pytest.raises(LorarecError, match=r"names listed, which is neither .* choose from general"):
        make_service(load=["general"], default_adapter="listed")
    with pytest.raises(LorarecError, match="default_adapter must be"):
        ServiceConfig(default_adapter=3)  # type: ignore[arg-type]

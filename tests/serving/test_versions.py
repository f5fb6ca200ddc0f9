"""Versions of adapters in answers, and the call that puts a previous version back."""

import asyncio
import io
import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec import Client, ServiceError
from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.ranking import Fusion
from lorarec.serving import logs
from lorarec.serving.fusion import ServedFusion
from lorarec.serving.service import Service

CANDIDATES = ["x02", "x05", "x29"]


def body(adapter: Any = "general") -> dict[str, Any]:
    return {"history": ["x01"], "candidates": CANDIDATES, "adapter": adapter}


def replace(adapters: Path, name: str, other: str) -> None:
    """Give an adapter the files of another."""
    shutil.rmtree(adapters / name)
    shutil.copytree(adapters / other, adapters / name)


async def ranked(client: httpx2.AsyncClient, adapter: Any = "general") -> tuple[dict[str, str], np.ndarray]:
    answer = await client.post("/v1/rank", json=body(adapter))
    assert answer.status_code == 200, answer.text
    found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
    return answer.json()["versions"], np.array([found[place] for place in range(len(CANDIDATES))])


def test_every_answer_and_the_log_have_the_versions(
    service: Service, offline: Any, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    general, specific = (offline.adapters[name].fingerprint for name in ("general", "specific"))
    stream = io.StringIO()
    monkeypatch.setattr(logs.requests, "handlers", [logging.StreamHandler(stream)])
    monkeypatch.setattr(logs.requests, "level", logging.INFO)
    logs.requests.manager._clear_cache()  # type: ignore[attr-defined]

    async def scenario(client: httpx2.AsyncClient) -> None:
        mixture = {"general": 0.3, "specific": 0.7}
        assert (await ranked(client, mixture))[0] == {"general": general, "specific": specific}
        assert (await ranked(client, {}))[0] == {}
        history = {"history": ["x01"], "adapter": "general"}
        for path in ("/v1/recommend", "/v1/explain"):
            assert (await client.post(path, json=history)).json()["versions"] == {"general": general}
        rerank = {"model": "general", "query": "red lamp", "documents": ["a"]}
        assert (await client.post("/v1/rerank", json=rerank)).json()["versions"] == {"general": general}
        texts = await client.post("/rerank", json={"query": "red lamp", "texts": ["a"]})
        assert texts.status_code == 422  # several adapters are loaded
        for name in ("listed", "listed2", "specific"):
            await client.delete(f"/v1/adapters/{name}")
        texts = await client.post("/rerank", json={"query": "red lamp", "texts": ["a"]})
        assert json.loads(texts.headers["x-adapter-versions"]) == {"general": general}

    play(service, scenario)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    logged = [line.get("versions") for line in lines if line["path"] == "/v1/rank"]
    assert logged == [{"general": general, "specific": specific}, None]
    logs.requests.manager._clear_cache()  # type: ignore[attr-defined]


def test_the_version_of_a_fusion_changes_with_what_decides_its_scores(
    fusion_folder: Path, tiny_backbone: Backbone, shop: Dataset, shop_split: Split
) -> None:
    fusion = Fusion.load(fusion_folder, shop, tiny_backbone, shop_split)
    version = ServedFusion(fusion).version
    assert ServedFusion(Fusion.load(fusion_folder, shop, tiny_backbone, shop_split)).version == version
    others = [fusion.with_new_item_prior(0.3), Fusion.load(fusion_folder, shop, tiny_backbone, shop_split)]
    next(iter(others[1].group.recommenders["sasrec"].tensors().values())).add_(1)
    assert len({version, *(ServedFusion(other).version for other in others)}) == 3


def test_answers_of_a_fusion_have_its_version(make_fused: Callable[..., Service], play: Any) -> None:
    service = make_fused()
    assert service.fusion

    async def scenario(client: httpx2.AsyncClient) -> None:
        for path, fields in (("rank", {"candidates": ["x05"]}), ("recommend", {}), ("explain", {})):
            answer = await client.post(f"/v1/{path}", json={"history": ["x01"], **fields})
            assert answer.json()["versions"] == {"fusion": service.fusion.version}, answer.text

    play(service, scenario)


def test_roll_back_puts_the_replaced_version_back(service: Service, offline: Any, adapters: Path, play: Any) -> None:
    scores = {name: offline.scores({name: 1.0}, None, ["x01"], CANDIDATES) for name in ("general", "specific")}
    old, new = (offline.adapters[name].fingerprint for name in ("general", "specific"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        async def check(version: str, source: str, previous: str | None) -> None:
            versions, found = await ranked(client)
            assert versions == {"general": version}
            np.testing.assert_allclose(found, scores[source], atol=1e-4)
            info = (await client.get("/v1/adapters/general")).json()
            assert (info["fingerprint"], info["previous"]) == (version, previous)

        refused = await client.post("/v1/adapters/general/rollback")
        assert refused.status_code == 409
        assert "adapter 'general' has no previous version" in refused.json()["detail"]
        assert (await client.post("/v1/adapters/nothing/rollback")).status_code == 404
        replace(adapters, "general", "specific")
        loaded = (await client.post("/v1/adapters", json={"name": "general"})).json()
        assert (loaded["fingerprint"], loaded["previous"]) == (new, old)
        await check(new, "specific", old)
        # Loading the same files again does not forget the version that differs from them.
        await client.post("/v1/adapters", json={"name": "general"})
        await check(new, "specific", old)
        put_back = await client.post("/v1/adapters/general/rollback")
        assert put_back.status_code == 200
        assert (put_back.json()["fingerprint"], put_back.json()["previous"]) == (old, new)
        await check(old, "general", new)
        shutil.rmtree(adapters / "general")  # both versions are in memory
        assert (await client.post("/v1/adapters/general/rollback")).json()["in_folder"] is False
        await check(new, "specific", old)
        assert (await client.delete("/v1/adapters/general")).status_code == 204
        assert (await client.post("/v1/adapters/general/rollback")).status_code == 404
        assert service.adapters.previous == {}

    play(service, scenario)


def test_answers_under_way_finish_on_the_version_they_began_with(
    service: Service, offline: Any, adapters: Path, play: Any
) -> None:
    scores = {
        offline.adapters[name].fingerprint: offline.scores({name: 1.0}, None, ["x01"], CANDIDATES)
        for name in ("general", "specific")
    }
    old, new = scores

    async def scenario(client: httpx2.AsyncClient) -> None:
        replace(adapters, "general", "specific")
        assert (await client.post("/v1/adapters", json={"name": "general"})).status_code == 200
        release = threading.Event()
        blocked = asyncio.ensure_future(service.batcher.call(release.wait))
        before = [asyncio.ensure_future(ranked(client)) for _ in range(3)]
        while len(service.batcher._queue) < 3:
            await asyncio.sleep(0.01)
        rolled = asyncio.ensure_future(client.post("/v1/adapters/general/rollback"))
        while len(service.batcher._queue) < 4:
            await asyncio.sleep(0.01)
        release.set()
        await blocked
        during = []
        while not rolled.done():
            during.append(asyncio.ensure_future(ranked(client)))
            await asyncio.sleep(0.01)
        assert (await rolled).status_code == 200
        for versions, _ in await asyncio.gather(*before):
            assert versions == {"general": new}
        for versions, found in await asyncio.gather(*before, *during, ranked(client)):
            np.testing.assert_allclose(found, scores[versions["general"]], atol=1e-4)
        assert (await ranked(client))[0] == {"general": old}

    play(service, scenario)


def test_a_previous_version_that_cannot_be_installed_is_refused(
    service: Service, adapters: Path, offline: Any, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = offline.adapters["specific"].fingerprint

    async def scenario(client: httpx2.AsyncClient) -> None:
        replace(adapters, "general", "specific")
        await client.post("/v1/adapters", json={"name": "general"})

        def refuse(*_: Any) -> None:
            raise LorarecError("adapters of ranks 3 and 5 cannot be summed")

        with monkeypatch.context() as patch:
            patch.setattr(service.adapters._installer, "install", refuse)
            refused = await client.post("/v1/adapters/general/rollback")
        assert refused.status_code == 409
        expected = "adapter general cannot be rolled back: adapters of ranks 3 and 5 cannot be summed"
        assert expected in refused.json()["detail"]
        assert f"version {new} stays in use" in refused.json()["detail"]
        assert (await ranked(client))[0] == {"general": new}
        assert (await client.post("/v1/adapters/general/rollback")).status_code == 200

    play(service, scenario)


def test_the_clients_roll_back(service: Service, served: Any, adapters: Path, offline: Any) -> None:
    version = offline.adapters["general"].fingerprint
    with served(service) as url, Client(url) as client:
        with pytest.raises(ServiceError, match="has no previous version") as refused:
            client.rollback_adapter("general")
        assert refused.value.status == 409
        replace(adapters, "general", "specific")
        loaded = client.load_adapter("general")
        put_back = client.rollback_adapter("general")
        assert (put_back.fingerprint, put_back.previous) == (loaded.previous, loaded.fingerprint)
        ranking = client.rank(CANDIDATES, history=["x01"], adapter="general")
        assert ranking.versions == {"general": version}

"""Adapters that one replica loads or unloads are loaded and unloaded in all replicas of the database."""

import asyncio
import copy
import logging
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.serving import announcements
from lorarec.serving.adapter_table import AdapterTable
from lorarec.serving.app import create_app
from lorarec.serving.config import ServiceConfig
from lorarec.serving.database import open_engine
from lorarec.serving.histories import Histories
from lorarec.serving.service import Service
from tests.postgres import find_postgres, postgres_server

CANDIDATES = ["x02", "x05", "x29"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(announcements, "RETRY_SECONDS", 0.1)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database that replicas share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'shared.db'}"
        return
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: on Debian, apt-get install postgresql")
    with postgres_server(programs) as server:
        yield server.url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


class Replicas:
    """Services over one database, each with a backbone and a folder of adapters of its own."""

    def __init__(self, backbone: Backbone, offline: Any, adapters: Path) -> None:
        self._backbone, self._offline, self._adapters = backbone, offline, adapters
        self._model = copy.deepcopy(backbone.model)

    def folder(self, number: int) -> Path:
        folder = self._adapters.with_name(f"adapters{number}")
        if not folder.exists():
            shutil.copytree(self._adapters, folder)
        return folder

    def make(self, database: str, number: int, load: list[str] | None = None) -> Service:
        backbone = replace(self._backbone, model=copy.deepcopy(self._model))
        config = ServiceConfig(wait_ms=0)
        return Service(backbone, self._offline.dataset, self.folder(number), database, config, load=load)


@pytest.fixture
def replicas(offline: Any, tiny_backbone: Backbone, adapters: Path) -> Replicas:
    return Replicas(tiny_backbone, offline, adapters)


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    app = create_app(service)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client,
    ):
        yield client


def play(services: list[Service], scenario: Callable[..., Awaitable[None]]) -> None:
    async def run() -> None:
        async with client_of(services[0]) as one, client_of(services[1]) as other:
            await scenario(one, other)

    asyncio.run(run())


async def rank(client: httpx2.AsyncClient, adapter: Any) -> httpx2.Response:
    return await client.post("/v1/rank", json={"history": ["x01"], "candidates": CANDIDATES, "adapter": adapter})


async def scores(client: httpx2.AsyncClient, adapter: Any) -> np.ndarray:
    answer = await rank(client, adapter)
    assert answer.status_code == 200, answer.text
    found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
    return np.array([found[place] for place in range(len(CANDIDATES))])


async def until(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.01)


def swap(folder: Path, other: str) -> None:
    """Replace the adapter `general` of a folder by another version."""
    shutil.rmtree(folder / "general")
    shutil.copytree(folder / other, folder / "general")


def test_a_load_and_an_unload_reach_the_other_replica(database: str, replicas: Replicas, offline: Any) -> None:
    services = [replicas.make(database, number, ["general"]) for number in range(2)]
    expected = {name: offline.scores({name: 1.0}, None, ["x01"], CANDIDATES) for name in ("general", "specific")}

    async def scenario(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
        assert (await rank(other, "specific")).status_code == 404
        assert (await one.post("/v1/adapters", json={"name": "specific"})).status_code == 200
        np.testing.assert_allclose(await scores(one, "specific"), expected["specific"], atol=1e-4)
        await until(lambda: "specific" in services[1].adapters.loaded)
        np.testing.assert_allclose(await scores(other, "specific"), expected["specific"], atol=1e-4)
        assert (await other.delete("/v1/adapters/general")).status_code == 204
        await until(lambda: "general" not in services[0].adapters.loaded)
        for client in (one, other):
            assert (await rank(client, "general")).status_code == 404
            np.testing.assert_allclose(await scores(client, None), expected["specific"], atol=1e-4)
            assert (await client.get("/readyz")).json()["unavailable"] == 0

    play(services, scenario)
    # A replica that starts later loads what is announced, not what its options name.
    late = replicas.make(database, 2, ["general"])
    assert set(late.adapters.loaded) == {"specific"}


def test_a_reload_reaches_replicas_whose_folders_have_the_version(
    sqlite: str, replicas: Replicas, offline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    services = [replicas.make(sqlite, number, ["general"]) for number in range(2)]
    old, new = (offline.scores({name: 1.0}, None, ["x01"], CANDIDATES) for name in ("general", "specific"))

    async def scenario(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
        swap(replicas.folder(0), "specific")
        assert (await one.post("/v1/adapters", json={"name": "general"})).status_code == 200
        await until(lambda: "general" not in services[1].adapters.loaded)
        answer = await rank(other, "general")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "the folder of this replica has version" in answer.json()["detail"]
        # The only adapter that is announced is not replaced by another one.
        assert (await rank(other, None)).status_code == 503
        ready = await other.get("/readyz")
        assert (ready.status_code, ready.json()["adapters"], ready.json()["unavailable"]) == (200, 0, 1)
        assert list((await other.get("/v1/adapters")).json()["unavailable"]) == ["general"]
        assert 'lorarec_adapter_unavailable{adapter="general"} 1.0' in (await other.get("/metrics")).text
        await asyncio.sleep(0.3)  # it is tried again, and reported once
        assert caplog.text.count("adapter general, which is announced, is not loaded: the folder") == 1
        swap(replicas.folder(1), "specific")
        await until(lambda: "general" in services[1].adapters.loaded)
        np.testing.assert_allclose(await scores(other, "general"), new, atol=1e-4)
        assert "lorarec_adapter_unavailable{" not in (await other.get("/metrics")).text
        assert np.abs(old - new).max() > 1e-2

    with caplog.at_level(logging.WARNING):
        play(services, scenario)
    shutil.rmtree(replicas.folder(2), ignore_errors=True)
    late = replicas.make(sqlite, 2, ["general"])  # a copy of the former version
    assert (dict(late.adapters.loaded), list(late.adapters.unavailable)) == ({}, ["general"])


def test_a_roll_back_reaches_the_other_replica(sqlite: str, replicas: Replicas, offline: Any) -> None:
    """The version is in the memory of both, and no longer in their folders."""
    services = [replicas.make(sqlite, number, ["general"]) for number in range(2)]
    old, new = (offline.scores({name: 1.0}, None, ["x01"], CANDIDATES) for name in ("general", "specific"))

    async def scenario(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
        version = services[0].adapters.loaded["general"].fingerprint
        for number in range(2):
            swap(replicas.folder(number), "specific")
        assert (await one.post("/v1/adapters", json={"name": "general"})).status_code == 200
        await until(lambda: services[1].adapters.loaded["general"].fingerprint != version)
        np.testing.assert_allclose(await scores(other, "general"), new, atol=1e-4)
        assert (await other.post("/v1/adapters/general/rollback")).json()["fingerprint"] == version
        await until(lambda: services[0].adapters.loaded["general"].fingerprint == version)
        for client in (one, other):
            np.testing.assert_allclose(await scores(client, "general"), old, atol=1e-4)

    play(services, scenario)


@pytest.mark.parametrize("fault", ["missing", "not usable"])
def test_what_a_replica_cannot_load_does_not_take_it_down(
    sqlite: str, replicas: Replicas, offline: Any, fault: str
) -> None:
    services = [replicas.make(sqlite, number, ["general"]) for number in range(2)]
    folder = replicas.folder(1) / "specific"
    if fault == "missing":
        shutil.rmtree(folder)
    else:
        (folder / "adapter_config.json").write_text("{}")
    expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)

    async def scenario(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
        assert (await one.post("/v1/adapters", json={"name": "specific"})).status_code == 200
        await until(lambda: "specific" in services[1].adapters.unavailable)
        await until(lambda: services[1].announcements.applied)
        np.testing.assert_allclose(await scores(other, "general"), expected, atol=1e-4)
        answer = await rank(other, {"general": 0.5, "specific": 0.5})
        assert answer.status_code == 503
        assert str(folder.parent) not in answer.json()["detail"]
        assert (await rank(other, None)).status_code == (await rank(one, None)).status_code == 422
        assert (await other.get("/readyz")).status_code == 200
        # It can be withdrawn where it is not loaded.
        assert (await other.delete("/v1/adapters/specific")).status_code == 204
        await until(lambda: "specific" not in services[0].adapters.loaded)
        assert (await rank(other, "specific")).status_code == 404
        assert (await other.delete("/v1/adapters/specific")).status_code == 404

    play(services, scenario)


def test_a_replica_is_not_ready_while_it_loads(
    sqlite: str, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = [replicas.make(sqlite, number, ["general"]) for number in range(2)]
    read = services[1].adapters._sources.read

    def slow(name: str, version: str | None = None) -> Any:
        time.sleep(0.5)
        return read(name, version)

    monkeypatch.setattr(services[1].adapters._sources, "read", slow)

    async def scenario(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
        await one.post("/v1/adapters", json={"name": "specific"})
        await until(lambda: not services[1].announcements.applied)
        ready = await other.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "degraded")
        assert (await other.get("/livez")).status_code == 200
        answer = await rank(other, "specific")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (503, "adapter")
        assert "it is being loaded" in answer.json()["detail"]
        assert (await rank(other, "general")).status_code == 200
        await until(lambda: services[1].announcements.applied)
        assert (await other.get("/readyz")).status_code == 200
        assert (await rank(other, "specific")).status_code == 200

    play(services, scenario)


def test_nothing_changes_if_it_cannot_be_announced(
    sqlite: str, replicas: Replicas, tmp_path: Path, offline: Any
) -> None:
    services = [replicas.make(sqlite, number, ["general"]) for number in range(2)]
    expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)

    async def scenario(one: httpx2.AsyncClient, other: httpx2.AsyncClient) -> None:
        (tmp_path / "shared.db").rename(tmp_path / "gone.db")
        assert (await one.post("/v1/adapters", json={"name": "specific"})).status_code == 503
        assert (await one.delete("/v1/adapters/general")).status_code == 503
        await asyncio.sleep(0.1)
        for client in (one, other):
            np.testing.assert_allclose(await scores(client, None), expected, atol=1e-4)
        (tmp_path / "gone.db").rename(tmp_path / "shared.db")
        assert (await one.post("/v1/adapters", json={"name": "specific"})).status_code == 200
        await until(lambda: "specific" in services[1].adapters.loaded)

    play(services, scenario)


def test_replicas_agree_after_changes_at_the_same_time(database: str, replicas: Replicas) -> None:
    """Whatever the order of loads and unloads on two replicas, both end with the same adapters."""
    services = [replicas.make(database, number, ["general"]) for number in range(2)]

    async def scenario(*clients: httpx2.AsyncClient) -> None:
        async def change(client: httpx2.AsyncClient, number: int) -> None:
            for step in range(4):
                name = ("specific", "listed")[(number + step) % 2]
                if (number + step) % 3:
                    answer = await client.post("/v1/adapters", json={"name": name})
                else:
                    answer = await client.delete(f"/v1/adapters/{name}")
                assert answer.status_code in (200, 204, 404)

        await asyncio.gather(*(change(client, number) for number, client in enumerate(clients)))
        await asyncio.sleep(0.1)
        await until(lambda: services[0].adapters.loaded.keys() == services[1].adapters.loaded.keys())
        announced = {each.name for each in AdapterTable(services[0].histories.engine).read(0) if each.fingerprint}
        assert set(services[0].adapters.loaded) == {"general"} | announced

    play(services, scenario)


def test_revisions_are_in_the_order_in_which_they_can_be_read(database: str, shop: Any) -> None:
    histories = Histories(database)
    histories.fill(shop)
    histories.close()
    engine = open_engine(database)
    table, seen = AdapterTable(engine), [0]

    def write(number: int) -> None:
        own_engine = open_engine(database)
        own = AdapterTable(own_engine)
        for step in range(5):
            own.write(f"adapter {number}", str(step))
        own_engine.dispose()

    with ThreadPoolExecutor(4) as threads:
        writing = [threads.submit(write, number) for number in range(4)]
        names: set[str] = set()
        while not all(each.done() for each in writing) or table.read(seen[-1]):
            for each in table.read(seen[-1]):
                assert each.revision > seen[-1]
                seen.append(each.revision)
                names.add(each.name)
        for each in writing:
            each.result()
    assert (len(names), seen[-1]) == (4, 20)
    assert {each.fingerprint for each in table.read(0)} == {"4"}
    engine.dispose()


def test_a_database_without_the_table_is_refused(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(LorarecError, match="cannot be used"):
        AdapterTable(open_engine(f"sqlite:///{tmp_path / 'empty.db'}")).read_all()

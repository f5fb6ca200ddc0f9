"""Adapters come and go while requests are served; files may go wrong, what is in memory stays right."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.serving.service import Service

CANDIDATES = ["x02", "x05", "x29"]


def body(adapter: Any) -> dict[str, Any]:
    return {"history": ["x01"], "candidates": CANDIDATES, "adapter": adapter}


async def scores(client: httpx2.AsyncClient, adapter: Any) -> np.ndarray:
    answer = await client.post("/v1/rank", json=body(adapter))
    assert answer.status_code == 200, answer.text
    found = {item["candidate"]: item["score"] for item in answer.json()["ranking"]}
    return np.array([found[place] for place in range(len(CANDIDATES))])


def test_list_load_and_unload(make_service: Callable[..., Service], offline: Any, play: Any) -> None:
    service = make_service(load=["general"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        listed = (await client.get("/v1/adapters")).json()
        assert listed["available"] == ["general", "listed", "listed2", "specific"]
        assert [(one["name"], one["rank"], one["readout"]) for one in listed["loaded"]] == [("general", 3, "verdict")]
        only = await scores(client, None)
        np.testing.assert_allclose(only, offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES), atol=1e-4)
        assert (await client.post("/v1/rank", json=body("specific"))).status_code == 404
        loaded = await client.post("/v1/adapters", json={"name": "specific"})
        assert loaded.status_code == 200
        assert loaded.json()["fingerprint"] == offline.adapters["specific"].fingerprint
        mixture = {"general": 0.3, "specific": 0.7}
        expected = offline.scores(mixture, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, mixture), expected, atol=1e-4)
        assert (await client.delete("/v1/adapters/general")).status_code == 204
        assert (await client.delete("/v1/adapters/general")).status_code == 404
        expected = offline.scores({"specific": 1.0}, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, None), expected, atol=1e-4)
        await client.delete("/v1/adapters/specific")
        expected = offline.scores({}, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, {}), expected, atol=1e-4)

    play(service, scenario)


def test_requests_before_an_unload_are_answered_with_the_adapter(service: Service, offline: Any, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        release = threading.Event()
        blocked = asyncio.ensure_future(service.batcher.call(release.wait))
        waiting = [asyncio.ensure_future(scores(client, "specific")) for _ in range(3)]
        while len(service.batcher._queue) < 3:
            await asyncio.sleep(0.01)
        unloading = asyncio.ensure_future(client.delete("/v1/adapters/specific"))
        while "specific" in service.shelf.loaded:
            await asyncio.sleep(0.01)
        assert (await client.post("/v1/rank", json=body("specific"))).status_code == 404
        release.set()
        await blocked
        expected = offline.scores({"specific": 1.0}, None, ["x01"], CANDIDATES)
        for found in await asyncio.gather(*waiting):
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (await unloading).status_code == 204

    play(service, scenario)


def test_reload_under_load_gives_the_old_or_the_new_scores(
    service: Service, offline: Any, adapters: Path, play: Any
) -> None:
    old, new = (offline.scores({name: 1.0}, None, ["x01"], CANDIDATES) for name in ("general", "specific"))

    async def scenario(client: httpx2.AsyncClient) -> None:
        shutil.rmtree(adapters / "general")
        shutil.copytree(adapters / "specific", adapters / "general")
        asked = [asyncio.ensure_future(scores(client, "general")) for _ in range(8)]
        reloaded = asyncio.ensure_future(client.post("/v1/adapters", json={"name": "general"}))
        while not reloaded.done():
            asked += [asyncio.ensure_future(scores(client, "general")) for _ in range(2)]
            await asyncio.sleep(0.01)
        assert (await reloaded).status_code == 200
        for found in await asyncio.gather(*asked):
            assert min(np.abs(found - old).max(), np.abs(found - new).max()) < 1e-4
        np.testing.assert_allclose(await scores(client, "general"), new, atol=1e-4)

    play(service, scenario)


@pytest.mark.parametrize("fault", ["cut", "overwritten", "pickle", "no config", "gone"])
def test_a_broken_folder_leaves_what_is_in_memory(
    make_service: Callable[..., Service], offline: Any, adapters: Path, play: Any, fault: str
) -> None:
    service = make_service(load=["general"])
    expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)
    weights = adapters / "general" / "adapter_model.safetensors"

    def break_it() -> None:
        if fault == "cut":
            with weights.open("r+b") as stream:
                stream.truncate(100)
        if fault == "overwritten":
            with weights.open("r+b") as stream:
                stream.write(b"\xff" * weights.stat().st_size)
        if fault == "pickle":
            weights.rename(weights.with_name("adapter_model.bin"))
        if fault == "no config":
            (adapters / "general" / "adapter_config.json").unlink()
        if fault == "gone":
            shutil.rmtree(adapters / "general")

    async def scenario(client: httpx2.AsyncClient) -> None:
        break_it()
        answer = await client.post("/v1/adapters", json={"name": "general"})
        message = answer.json()["error"]["message"]
        assert answer.json()["error"]["field"] == "name"
        if fault in ("no config", "gone"):
            assert answer.status_code == 404
            assert "loaded general" in message
        else:
            assert answer.status_code == 422
            assert message.startswith("adapter general cannot be loaded: ")
            assert message.endswith("; the version in memory stays in use")
        assert str(adapters) not in message
        # Another adapter makes the model stack all of them anew.
        assert (await client.post("/v1/adapters", json={"name": "specific"})).status_code == 200
        np.testing.assert_allclose(await scores(client, "general"), expected, atol=1e-4)
        listed = (await client.get("/v1/adapters")).json()["loaded"]
        assert [one["in_folder"] for one in listed] == [fault not in ("no config", "gone"), True]

    play(service, scenario)


def test_an_adapter_that_does_not_fit_is_refused_and_the_others_go_on(
    service: Service, offline: Any, adapters: Path, write_adapter: Any, play: Any
) -> None:
    write_adapter(offline.backbone.model, adapters / "wide", 9, {"readout": "verdict"}, r=5)
    write_adapter(offline.backbone.model, adapters / "foreign", 9, {"backbone": {"id": "other", "fingerprint": "f0"}})

    async def scenario(client: httpx2.AsyncClient) -> None:
        for name, message in (("wide", "use combine=deltas"), ("foreign", "belongs to backbone other")):
            answer = await client.post("/v1/adapters", json={"name": name})
            assert answer.status_code == 422
            assert message in answer.json()["error"]["message"]
        expected = offline.scores({"general": 1.0}, None, ["x01"], CANDIDATES)
        np.testing.assert_allclose(await scores(client, "general"), expected, atol=1e-4)

    play(service, scenario)


@pytest.mark.parametrize(
    "name",
    [
        *("../adapters/general", "..", ".", "/", "general/", "general/../general", "./general"),
        *("..\\general", "notes", ".hidden", "general\n", "%2e%2e", "~", "*"),
    ],
)
def test_names_are_never_paths(service: Service, adapters: Path, play: Any, name: str) -> None:
    shutil.copytree(adapters / "general", adapters / ".hidden")
    shutil.copytree(adapters / "general", adapters.parent / "outside")

    async def scenario(client: httpx2.AsyncClient) -> None:
        for tried in (name, f"../outside{name}", str(adapters.parent / "outside")):
            answer = await client.post("/v1/adapters", json={"name": tried})
            assert answer.status_code == 404
            quoted = "".join(f"%{byte:02x}" for byte in tried.encode())
            assert (await client.delete(f"/v1/adapters/{quoted}")).status_code in (404, 405)
        assert len(service.shelf.loaded) == 4

    play(service, scenario)


def test_loading_takes_nothing_but_a_name(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for wrong in ({"name": "general", "path": "/tmp"}, {"path": "/tmp"}, {"name": ["general"]}, {"name": ""}):
            assert (await client.post("/v1/adapters", json=wrong)).status_code == 422

    play(service, scenario)

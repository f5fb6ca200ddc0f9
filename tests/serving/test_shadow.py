"""Shadow variants score requests after the answer, while the model is idle, and never change an answer."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation import read_answers
from lorarec.ranking import Fusion
from lorarec.serving import shadow
from lorarec.serving.config import ServiceConfig
from lorarec.serving.experiment import Experiment
from lorarec.serving.service import Service

CANDIDATES = ["x02", "x05", "x29"]


def experiment(share: float = 1.0, **more: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "homepage",
            "variants": [{"name": "control", "share": 1, "adapter": "general"}],
            "shadow": [{"name": "next", "share": share, "adapter": {"general": 0.5, "specific": 0.5}}],
            **more,
        }
    )


@pytest.fixture
def make(tiny_backbone: Backbone, offline: Any, adapters: Path, tmp_path: Path) -> Callable[..., Service]:
    """Make a service with a shadow variant."""

    def make(tested: Experiment, log: Path | None = tmp_path / "log") -> Service:
        database, config = f"sqlite:///{tmp_path / 'histories.db'}", ServiceConfig(wait_ms=1)
        return Service(tiny_backbone, offline.dataset, adapters, database, config, experiment=tested, answer_log=log)

    return make


def counted(service: Service, result: str) -> float:
    labels = {"variant": "next", "result": result}
    return service.metrics.registry.get_sample_value("lorarec_shadow_total", labels) or 0


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_requests_are_drawn_by_their_ids() -> None:
    half, none = experiment(0.5), experiment(0)
    drawn = [bool(half.shadows(f"r{k}")) for k in range(4000)]
    assert abs(np.mean(drawn) - 0.5) < 0.05
    assert drawn == [bool(half.shadows(f"r{k}")) for k in range(4000)]
    assert not any(none.shadows(f"r{k}") for k in range(100))


def test_shadow_answers_are_logged_beside_the_real_ones(
    make: Callable[..., Service], offline: Any, tmp_path: Path, play: Any
) -> None:
    service = make(experiment())
    expected = offline.scores({"general": 0.5, "specific": 0.5}, None, ["x01"], CANDIDATES)

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": ["x01"], "assignment_id": "s1"}
        answer = await client.post("/v1/rank", json={**body, "candidates": CANDIDATES}, headers={"x-request-id": "r1"})
        assert (answer.json()["variant"], answer.json()["mixture"]) == ("control", {"general": 1.0})
        await becomes(lambda: counted(service, "scored") == 1)
        rules = {"top": 2, "deny": ["x03"]}
        answer = await client.post("/v1/recommend", json={**body, **rules}, headers={"x-request-id": "r2"})
        assert len(answer.json()["ranking"]) == 2
        await becomes(lambda: counted(service, "scored") == 2)
        # A request that names an adapter has no part in the experiment.
        await client.post("/v1/rank", json={**body, "candidates": CANDIDATES, "adapter": "general"})
        refused = await client.delete("/v1/adapters/specific")
        assert (refused.status_code, "variant 'next'" in refused.text) == (409, True)

    play(service, scenario)
    assert counted(service, "scored") == 2
    rows = read_answers(tmp_path / "log").to_dicts()
    assert [(row["request_id"], row["variant"], row["shadow"]) for row in rows[:4]] == [
        ("r1", "control", False),
        ("r1", "next", True),
        ("r2", "control", False),
        ("r2", "next", True),
    ]
    assert len(rows) == 5
    ranked, recommended = rows[1], rows[3]
    assert (ranked["user_id"], ranked["experiment"], ranked["propensity"]) == ("s1", "homepage", None)
    assert [each["name"] for each in ranked["versions"]] == ["general", "specific"]
    scores = dict(zip(ranked["item_ids"], ranked["scores"], strict=True))
    np.testing.assert_allclose([scores[item] for item in CANDIDATES], expected, atol=1e-4)
    assert len(recommended["item_ids"]) == 2
    assert recommended["candidates"] == rows[2]["candidates"] > 2


def test_a_shadow_fusion_scores_its_own_candidates_after_items_were_added(
    offline_fusion: Fusion,
    tiny_backbone: Backbone,
    shop: Dataset,
    shop_split: Split,
    adapters: Path,
    fusion_folder: Path,
    tmp_path: Path,
    play: Any,
) -> None:
    service = Service(
        tiny_backbone,
        shop,
        adapters,
        f"sqlite:///{tmp_path / 'histories.db'}",
        ServiceConfig(wait_ms=1, pool=12),
        fusion=Fusion.load(fusion_folder, shop, tiny_backbone, shop_split),
        experiment=experiment(shadow=[{"name": "next", "share": 1, "fusion": True}]),
        answer_log=tmp_path / "log",
    )
    items = [{"item_id": f"new{place}", "title": f"red lamp {place}"} for place in range(20)]
    body = {"history": ["x00"], "assignment_id": "s1", "top": 12}

    async def scenario(client: httpx2.AsyncClient) -> None:
        await client.post("/v1/recommend", json=body)
        await becomes(lambda: counted(service, "scored") == 1)
        assert (await client.post("/v1/items", json={"items": items})).json() == {"added": 20}
        answer = (await client.post("/v1/recommend", json=body)).json()
        assert any(each["item_id"].startswith("new") for each in answer["ranking"])
        await becomes(lambda: counted(service, "scored") == 2)
        # The fusion cannot score an item that it was fitted without.
        await client.post("/v1/rank", json={"history": ["x00"], "candidates": ["x02", "new0"]})
        await becomes(lambda: counted(service, "failed") == 1)

    play(service, scenario)
    before, after = read_answers(tmp_path / "log").filter(pl.col("variant") == "next").to_dicts()
    assert [after[name] for name in ("item_ids", "candidates")] == [before[name] for name in ("item_ids", "candidates")]
    np.testing.assert_allclose(after["scores"], before["scores"], atol=1e-4)


def test_answers_do_not_wait_for_shadows_and_busy_models_drop_them(
    make: Callable[..., Service], play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "WAIT_SECONDS", 0.3)
    service = make(experiment())

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": ["x01"], "candidates": CANDIDATES}
        with service.batcher.admit():  # another request is under way all the time
            for number in range(shadow.WAITING + 4):
                assert (await client.post("/v1/rank", json=body)).status_code == 200, number
            await becomes(lambda: counted(service, "dropped") == shadow.WAITING + 4)
        assert counted(service, "scored") == 0
        assert (await client.post("/v1/rank", json=body)).status_code == 200
        await becomes(lambda: counted(service, "scored") == 1)

    play(service, scenario)


def test_a_shadow_that_fails_is_counted_and_reaches_no_client(
    make: Callable[..., Service], play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make(experiment())

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": ["x01"], "candidates": CANDIDATES}
        weights = service.adapters.weights

        def fail(adapter: Any) -> Any:
            if isinstance(adapter, dict):
                raise RuntimeError("broken")
            return weights(adapter)

        monkeypatch.setattr(service.adapters, "weights", fail)
        assert (await client.post("/v1/rank", json=body)).status_code == 200
        await becomes(lambda: counted(service, "failed") == 1)

    play(service, scenario)


def test_the_service_stops_while_a_shadow_waits(make: Callable[..., Service], play: Any) -> None:
    service = make(experiment())

    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/rank", json={"history": ["x01"], "candidates": CANDIDATES})).status_code == 200
        assert service._shadow._tasks

    play(service, scenario)


@pytest.mark.parametrize(
    ("tested", "log", "message"),
    [
        (experiment(), False, "answers of shadow variants are only logged: give option answer_log"),
        (
            experiment(shadow=[{"name": "next", "share": 1, "adapter": "none"}]),
            True,
            "variant 'next' cannot be answered: adapter 'none' does not exist",
        ),
        (experiment(shadow=[{"name": "next", "share": 1, "fusion": True}]), True, "give option fusion"),
    ],
)
def test_shadows_that_cannot_be_are_refused(
    make: Callable[..., Service], tmp_path: Path, tested: Experiment, log: bool, message: str
) -> None:
    with pytest.raises(LorarecError, match=message):
        make(tested, tmp_path / "log" if log else None)
    with pytest.raises(ValueError, match="two variants are called 'control'"):
        experiment(shadow=[{"name": "control", "share": 1, "adapter": "general"}])

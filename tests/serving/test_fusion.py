"""Answers of a fusion: equal to the offline ones, with parts, beside adapters that requests name."""

import asyncio
import copy
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

from lorarec import cli
from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, leave_one_out
from lorarec.errors import LorarecError
from lorarec.ranking import FusedScores, Fusion, fuse
from lorarec.recommenders import FusionConfig, ItemKNN, Popularity, SASRec, SASRecConfig, TfIdf
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service

RECOMMENDERS = {
    "sasrec": SASRec(SASRecConfig(epochs=1, hidden_size=8)),
    "item-knn": ItemKNN(),
    "tf-idf": TfIdf(),
    "popularity": Popularity(),
}
PARTS = ["shop", "listed", *RECOMMENDERS, "new item"]


@pytest.fixture
def split(shop: Dataset) -> Split:
    """Split of the shop, whose training part lacks the last two interactions of each user."""
    return leave_one_out(shop, negatives=5)


@pytest.fixture
def fusion_folder(tiny_backbone: Backbone, adapters: Path, shop: Dataset, split: Split, tmp_path: Path) -> Path:
    """Fusion of two adapters with different prompts, one of which reads evidence, and four recommenders."""
    backbone = replace(tiny_backbone, model=copy.deepcopy(tiny_backbone.model))
    folder = tmp_path / "fusion"
    both = {"shop": adapters / "general", "listed": adapters / "listed"}
    config = FusionConfig(pool=12, hidden_items=0.2)
    fuse(shop, both, RECOMMENDERS, folder, backbone=backbone, split=split, config=config)
    return folder


@pytest.fixture
def offline_fusion(tiny_backbone: Backbone, fusion_folder: Path, shop: Dataset, split: Split) -> Fusion:
    """The fusion with a backbone of its own."""
    backbone = replace(tiny_backbone, model=copy.deepcopy(tiny_backbone.model))
    return Fusion.load(fusion_folder, shop, backbone, split)


@pytest.fixture
def make_fused(
    offline_fusion: Fusion,
    tiny_backbone: Backbone,
    adapters: Path,
    fusion_folder: Path,
    shop: Dataset,
    split: Split,
    tmp_path: Path,
) -> Callable[..., Service]:
    """Make a service with the fusion; made after the offline fusion has copied the backbone."""

    def make(folder: Path | None = adapters, **options: Any) -> Service:
        fusion = Fusion.load(fusion_folder, shop, tiny_backbone, split)
        config = ServiceConfig(**{"wait_ms": 50, "pool": 12, **options})
        return Service(tiny_backbone, shop, folder, f"sqlite:///{tmp_path / 'fused.db'}", config, fusion=fusion)

    return make


@pytest.fixture
def service(make_fused: Callable[..., Service]) -> Service:
    """A service with the fusion and all adapters."""
    return make_fused()


def score(
    fusion: Fusion, user: str | None, history: Sequence[str], candidates: Sequence[str], pool: bool = False
) -> FusedScores:
    """Return the offline scores of one case."""
    columns = {"user_id": [user], "history": [list(history)], "candidates": [list(candidates)]}
    lists = pl.List(pl.String)
    cases = pl.DataFrame(columns, {"user_id": pl.String, "history": lists, "candidates": lists})
    return fusion.score_with_parts(cases, pool=pool)[0]


def check(answer: dict[str, Any], expected: FusedScores, candidates: Sequence[str]) -> None:
    """Compare all items of a response with the offline scores of the candidates."""
    assert (answer["fusion"], answer["mixture"], answer["personal"]) == (True, {}, {})
    order = np.argsort(-expected.log_probabilities, kind="stable")[: len(answer["ranking"])]
    assert [item["item_id"] for item in answer["ranking"]] == [candidates[place] for place in order]
    for place, item in zip(order, answer["ranking"], strict=True):
        assert item["candidate"] == place
        assert item["score"] == pytest.approx(expected.log_probabilities[place], abs=1e-4)
        assert item["probability"] == pytest.approx(np.exp(item["score"]))
        assert [item[name] for name in ("log_odds", "log_likelihood", "log_prior")] == [None] * 3
        assert list(item["parts"]) == list(expected.parts)
        for name, part in item["parts"].items():
            assert part == pytest.approx(expected.parts[name][place], abs=1e-4)


def test_ranked_candidates_get_the_offline_scores_in_shared_batches(
    service: Service, offline_fusion: Fusion, play: Any
) -> None:
    cases = []
    for number in range(12):
        user = f"u{number:02}" if number % 2 else None
        history = service.histories.history(f"u{number:02}", 100)
        # x29 is a new item
        cases.append((user, history, [f"x{(number * 3 + k * 5) % 29:02}" for k in range(2 + number % 5)] + ["x29"]))
    expected = [score(offline_fusion, *case) for case in cases]

    async def scenario(client: httpx2.AsyncClient) -> None:
        def body(user: str | None, history: list[str], candidates: list[str]) -> dict[str, Any]:
            return {**({"user_id": user} if user else {"history": history}), "candidates": candidates}

        answers = await asyncio.gather(*(client.post("/v1/rank", json=body(*case)) for case in cases))
        for answer, case, scores in zip(answers, cases, expected, strict=True):
            check(answer.json(), scores, case[2])
            assert list(answer.json()["ranking"][0]["parts"]) == PARTS

    play(service, scenario)
    sizes = {s.name: s.value for m in service.metrics.batch_size.collect() for s in m.samples if not s.labels}
    assert sizes["lorarec_batch_size_sum"] == 24
    assert sizes["lorarec_batch_size_count"] < 12
    assert service.metrics.registry.get_sample_value("lorarec_fused_total") == 12
    assert service.metrics.registry.get_sample_value("lorarec_fusion_seconds_count") == 12


def test_recommendations_equal_the_offline_ones_and_follow_events(
    service: Service, offline_fusion: Fusion, play: Any
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for _ in range(2):
            history = service.histories.history("u03", 100)
            pool = [each.item_id for each in service._index.propose(history, 12)]
            expected = score(offline_fusion, "u03", history, pool, pool=True)
            answer = (await client.post("/v1/recommend", json={"user_id": "u03", "top": 5})).json()
            assert len(answer["ranking"]) == 5
            check(answer, expected, pool)
            assert list(answer["ranking"][0]["parts"]) == [*PARTS[:-1], "index", "new item"]
            event = {"user_id": "u03", "item_id": answer["ranking"][0]["item_id"]}
            await client.post("/v1/events", json={"events": [event]})
        nothing = {"history": [f"x{k:02}" for k in range(30)]}
        answer = (await client.post("/v1/recommend", json=nothing)).json()
        assert answer == {"ranking": [], "fusion": True, "mixture": {}, "personal": {}}

    play(service, scenario)


def test_a_request_that_names_an_adapter_is_answered_by_it(service: Service, offline: Any, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"user_id": "u04", "candidates": ["x01", "x29"]}
        fused, named = await asyncio.gather(
            client.post("/v1/rank", json=body), client.post("/v1/rank", json={**body, "adapter": "general"})
        )
        history = service.histories.history("u04", 100)
        scores = offline.scores({"general": 1.0}, "u04", history, body["candidates"])
        answer = named.json()
        assert (answer["fusion"], answer["mixture"]) == (False, {"general": 1.0})
        for item in answer["ranking"]:
            assert item["score"] == pytest.approx(scores[item["candidate"]], abs=1e-4)
            assert item["parts"] == {}
        assert fused.json()["fusion"]
        for name in service.adapters.available():
            await client.delete(f"/v1/adapters/{name}")
        again = await client.post("/v1/rank", json=body)
        assert again.json() == pytest.approx(fused.json())

    play(service, scenario)

"""Rules of requests for recommendations: the answers are the offline ones, and what does not fit is refused."""

import asyncio
import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, ItemFilter, leave_one_out
from lorarec.ranking import Ranker, Recommendation, fuse, recommend_users
from lorarec.recommenders import FusionConfig
from lorarec.retrieval import Boost, ItemRules
from lorarec.serving.config import ServiceConfig
from lorarec.serving.schemas import RecommendRequest
from lorarec.serving.service import Service

RULES = ItemRules(
    where=[ItemFilter("price", "<=", 13), ItemFilter("region", "in", ["DE", "AT"])],
    at_most={"brand": 2},
    boost=[Boost(ItemFilter("stock", "=", True), 0.7)],
)
BODY: dict[str, Any] = {
    "where": [
        {"column": "price", "op": "<=", "value": 13},
        {"column": "region", "op": "in", "value": ["DE", "AT"]},
    ],
    "at_most": {"brand": 2},
    "boost": [{"where": {"column": "stock", "op": "=", "value": True}, "add": 0.7}],
}
POOL = 4
#: Changes of a body, and the field and a part of the message of the error.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"where": [*BODY["where"], {"column": "prize", "op": "<=", "value": 1}]},
        "where.2",
        "the items of priced have no column 'prize': choose from item_id, title, price, region, brand, stock",
    ),
    ({"where": [{"column": "price", "op": "contains", "value": "1"}]}, "where.0", "column price holds numbers"),
    ({"where": [{"column": "price", "op": "in", "value": 1}]}, "where.0", "in needs a list of values"),
    ({"where": [{"column": "price", "op": "~", "value": 1}]}, "where.0.op", "Input should be '='"),
    ({"at_most": {"maker": 1}}, "at_most", "have no column 'maker'"),
    ({"at_most": {"brand": 0}}, "at_most.brand", "greater than or equal to 1"),
    ({"boost": [{"where": {"column": "brand", "op": "=", "value": 3}, "add": 1}]}, "boost.0.where", "3 is not text"),
]


@pytest.fixture
def priced(shop: Dataset) -> Dataset:
    """The shop with prices, regions, brands and stocks, as an import from a file stores them."""
    columns = {
        "price": [str(row % 17) if row % 7 else None for row in range(30)],
        "region": [("DE", "AT", "FR")[row % 3] for row in range(30)],
        "brand": [("Lux", "Nord", "Ost", "West", None)[row % 5] for row in range(30)],
        "stock": [("True", "False")[row % 2] for row in range(30)],
    }
    items = shop.items.with_columns(pl.Series(name, values) for name, values in columns.items())
    return Dataset.from_frames("priced", shop.interactions, items)


def check(answer: httpx2.Response, expected: list[Recommendation]) -> None:
    """Compare a response with offline recommendations."""
    assert answer.status_code == 200, answer.text
    ranking = answer.json()["ranking"]
    assert [item["item_id"] for item in ranking] == [item.item_id for item in expected]
    for name in ("score", "probability", "boost"):
        assert [item[name] for item in ranking] == pytest.approx([getattr(item, name) for item in expected], abs=1e-4)


def hold(items: list[str], priced: Dataset, top_k: int) -> None:
    """Check that all items match the filters, that the limit holds, and that the list is full."""
    rows = [row for row in priced.items.iter_rows(named=True) if row["item_id"] in items]
    assert len(items) == len(rows) == top_k
    assert all(row["price"] is not None and int(row["price"]) <= 13 and row["region"] != "FR" for row in rows)
    assert max(Counter(row["brand"] for row in rows if row["brand"]).values()) <= 2


def test_answers_of_adapters_are_the_offline_ones(
    priced: Dataset, tiny_backbone: Backbone, adapters: Path, tmp_path: Path, play: Any
) -> None:
    backbone = replace(tiny_backbone, model=copy.deepcopy(tiny_backbone.model))
    users = ["u01", "u02", "u07"]
    with Ranker(backbone, adapters / "general") as ranker:
        expected = recommend_users(ranker, priced, users, 4, POOL, rules=RULES)
    config, database = ServiceConfig(wait_ms=50, pool=POOL), f"sqlite:///{tmp_path / 'histories.db'}"
    service = Service(tiny_backbone, priced, adapters, database, config)

    async def scenario(client: httpx2.AsyncClient) -> None:
        bodies = [{"user_id": user, "top": 4, "adapter": "general", **BODY} for user in users]
        answers = await asyncio.gather(*(client.post("/v1/recommend", json=body) for body in bodies))
        for user, answer in zip(users, answers, strict=True):
            check(answer, expected[user])
            hold([item["item_id"] for item in answer.json()["ranking"]], priced, 4)
        one = {"user_id": "u01", "adapter": "general", "where": BODY["where"]}
        best = (await client.post("/v1/recommend", json={**one, "top": 4})).json()["ranking"][0]
        explained = (await client.post("/v1/explain", json=one)).json()["candidate"]
        assert explained.pop("parts") == best.pop("parts") == {}
        assert explained == pytest.approx(best, abs=1e-4)
        nothing = {**one, "where": [{"column": "price", "op": ">", "value": 99}]}
        assert (await client.post("/v1/recommend", json={**nothing, "top": 4})).json()["ranking"] == []
        assert (await client.post("/v1/explain", json=nothing)).status_code == 422
        for change, field, message in REFUSED:
            refused = await client.post("/v1/recommend", json={**one, "top": 4, **change})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
            assert message in refused.json()["detail"]
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
        assert {"where", "at_most", "boost"} <= set(schemas["RecommendRequest"]["properties"])
        RecommendRequest.model_validate(schemas["RecommendRequest"]["examples"][1])

    play(service, scenario)


def test_answers_of_a_fusion_are_the_offline_ones(
    priced: Dataset, tiny_backbone: Backbone, tmp_path: Path, play: Any
) -> None:
    split, config = leave_one_out(priced, negatives=5), FusionConfig(pool=12, hidden_items=0.2)
    fusion = fuse(priced, recommenders=("item-knn", "tf-idf", "popularity"), split=split, config=config)
    expected = recommend_users(fusion, priced, ["u03", "u04"], 4, POOL, rules=RULES)
    options, database = ServiceConfig(wait_ms=50, pool=POOL), f"sqlite:///{tmp_path / 'histories.db'}"
    service = Service(tiny_backbone, priced, None, database, options, fusion=fusion)

    async def scenario(client: httpx2.AsyncClient) -> None:
        for user, items in expected.items():
            answer = await client.post("/v1/recommend", json={"user_id": user, "top": 4, **BODY})
            check(answer, items)
            hold([item["item_id"] for item in answer.json()["ranking"]], priced, 4)

    play(service, scenario)

"""Answers of a fusion: equal to the offline ones, with parts, beside adapters that requests name."""

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.lora.record import AdapterRecord
from lorarec.ranking import AdapterScorer, FusedScores, Fusion, TrainedAdapter, explain, fuse
from lorarec.recommenders import FusionConfig
from lorarec.serving.service import Service

PARTS = ["shop", "listed", "sasrec", "item-knn", "tf-idf", "popularity", "new item"]


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
            pool = [each.item_id for each in service.catalogue.state.fusion.index.propose(history, 12)]
            expected = score(offline_fusion, "u03", history, pool, pool=True)
            answer = (await client.post("/v1/recommend", json={"user_id": "u03", "top": 5})).json()
            assert len(answer["ranking"]) == 5
            check(answer, expected, pool)
            assert list(answer["ranking"][0]["parts"]) == [*PARTS[:-1], "index", "new item"]
            event = {"user_id": "u03", "item_id": answer["ranking"][0]["item_id"]}
            await client.post("/v1/events", json={"events": [event]})
        nothing = {"history": [f"x{k:02}" for k in range(30)]}
        answer = (await client.post("/v1/recommend", json=nothing)).json()
        versions = {"fusion": service.fusion.version} if service.fusion else {}
        empty = {"ranking": [], "fusion": True, "mixture": {}, "personal": {}, "tokens": 0}
        assert answer == empty | {"versions": versions, "variant": None}

    play(service, scenario)


def test_a_request_that_names_an_adapter_is_answered_by_it(
    offline: Any, offline_fusion: Fusion, service: Service, play: Any
) -> None:
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
        expected = score(offline_fusion, "u04", history, body["candidates"])
        check(fused.json(), expected, body["candidates"])
        for name in service.adapters.available():
            await client.delete(f"/v1/adapters/{name}")
        check((await client.post("/v1/rank", json=body)).json(), expected, body["candidates"])

    play(service, scenario)


def test_an_explanation_leaves_out_each_item_of_the_history(
    service: Service, offline_fusion: Fusion, play: Any
) -> None:
    candidates = ["x01", "x05", "x29"]

    async def scenario(client: httpx2.AsyncClient) -> None:
        history = ["x02", "x03", "x04"]
        body = {"history": history, "candidates": candidates, "candidate": 1}
        answer = (await client.post("/v1/explain", json=body)).json()
        whole = score(offline_fusion, None, history, candidates)
        assert (answer["fusion"], answer["mixture"]) == (True, {})
        reader = offline_fusion.group.recommenders["shop"]
        assert isinstance(reader, TrainedAdapter)
        assert isinstance(reader.scorer, AdapterScorer)
        assert reader.scorer.evidence is not None
        assert answer["evidence"] == {"shop": reader.scorer.evidence.hints(history, ["x05"])[0]}
        assert answer["candidate"]["parts"] == pytest.approx({k: v[1] for k, v in whole.parts.items()}, abs=1e-4)
        assert [item["item_id"] for item in answer["history"]] == history
        for place, item in enumerate(answer["history"]):
            without = score(offline_fusion, None, history[:place] + history[place + 1 :], candidates)
            effect = whole.log_probabilities[1] - without.log_probabilities[1]
            assert item["score"] == pytest.approx(effect, abs=1e-4)

    play(service, scenario)


def test_a_recommendation_is_explained_by_the_weights_that_recommend_it(
    service: Service, offline_fusion: Fusion, shop: Dataset, play: Any
) -> None:
    """The answers are those of `explain` offline, also for an item that the index does not propose."""
    best = explain(offline_fusion, shop, "u03", pool=12)
    pool = [each.item_id for each in service.catalogue.state.fusion.index.propose(shop.history("u03"), 12)]
    outside = next(item for item in shop.titles if item not in {*pool, *shop.history("u03")})
    cases = [({}, best)]
    cases += [({"item_id": item}, explain(offline_fusion, shop, "u03", item, 12)) for item in (pool[4], outside)]

    async def scenario(client: httpx2.AsyncClient) -> None:
        recommended = (await client.post("/v1/recommend", json={"user_id": "u03", "top": 1})).json()["ranking"][0]
        for change, expected in cases:
            answer = (await client.post("/v1/explain", json={"user_id": "u03", **change})).json()
            found = answer["candidate"]
            assert (answer["fusion"], found["item_id"]) == (True, expected.item_id)
            assert found["score"] == pytest.approx(expected.score, abs=1e-4)
            assert found["probability"] == pytest.approx(expected.probability, abs=1e-4)
            assert found["parts"] == pytest.approx(expected.parts, abs=1e-4)
            assert [item["item_id"] for item in answer["history"]] == [item.item_id for item in expected.influences]
            for item, influence in zip(answer["history"], expected.influences, strict=True):
                assert item["score"] == pytest.approx(influence.score, abs=1e-4)
                assert item["probability"] == pytest.approx(influence.probability, abs=1e-4)
            if not change:
                assert found.pop("parts") == pytest.approx(recommended.pop("parts"), abs=1e-4)
                assert found == pytest.approx(recommended, abs=1e-4)
        # What may not be recommended is not among the candidates either.
        few = {"user_id": "u03", "allow": pool[:3], "deny": pool[:1]}
        answer = (await client.post("/v1/explain", json=few)).json()
        first = (await client.post("/v1/recommend", json=few)).json()["ranking"][0]
        assert answer["candidate"]["item_id"] == first["item_id"]
        assert answer["candidate"]["score"] == pytest.approx(first["score"], abs=1e-4)

    play(service, scenario)


def test_items_outside_the_catalogue(service: Service, offline_fusion: Fusion, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": ["x02"], "candidates": ["x01", {"title": "no such lamp"}]}
        refused = await client.post("/v1/rank", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "candidates.1")
        assert "name an adapter" in refused.json()["detail"]
        assert (await client.post("/v1/rank", json={**body, "adapter": "general"})).status_code == 200
        # A title in the history is read by adapters; other recommenders know nothing of it.
        titled = {"history": ["x02", {"title": "no such lamp"}], "candidates": ["x01", "x29"]}
        answer = (await client.post("/v1/rank", json=titled)).json()
        expected = score(offline_fusion, None, ["x02"], ["x01", "x29"])
        found = {item["candidate"]: item["parts"] for item in answer["ranking"]}
        for name in ("item-knn", "tf-idf", "popularity"):
            assert found[0][name] == pytest.approx(expected.parts[name][0], abs=1e-6)
        empty = (await client.post("/v1/rank", json={"history": [], "candidates": ["x01", "x29"]})).json()
        check(empty, score(offline_fusion, None, [], ["x01", "x29"]), ["x01", "x29"])

    play(service, scenario)


def test_the_fusion_is_described(make_fused: Callable[..., Service], play: Any) -> None:
    service = make_fused(folder=None)

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = (await client.get("/v1/adapters")).json()
        assert (answer["loaded"], answer["available"]) == ([], [])
        assert answer["fusion"] == {
            "recommenders": {
                "shop": "language model",
                "listed": "language model",
                "sasrec": "next-item model",
                "item-knn": "co-occurrence",
                "tf-idf": "titles",
                "popularity": "popularity",
            },
            "new_item_prior": "auto",
        }
        assert (await client.get("/readyz")).json()["fusion"] is True
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
        assert "`index`" in schemas["RankedItem"]["properties"]["parts"]["description"]
        assert (await client.post("/v1/rank", json={"history": ["x02"], "candidates": ["x01"]})).status_code == 200

    play(service, scenario)


def test_a_fusion_is_not_an_adapter(service: Service, adapters: Path, fusion_folder: Path, play: Any) -> None:
    shutil.copytree(fusion_folder, adapters / "fused")

    async def scenario(client: httpx2.AsyncClient) -> None:
        refused = await client.post("/v1/adapters", json={"name": "fused"})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (404, "name")
        assert refused.json()["errors"][0]["message"].startswith("'fused' is a fusion, not an adapter")

    play(service, scenario)


def test_a_fusion_of_another_dataset_or_backbone_is_refused(
    offline_fusion: Fusion, tiny_backbone: Backbone, shop: Dataset, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'histories.db'}"
    other = Dataset.from_frames("other", shop.interactions.head(50), shop.items)
    with pytest.raises(LorarecError, match=r"the fusion was fitted to shop .* not to other"):
        Service(tiny_backbone, other, None, database, fusion=offline_fusion)
    recommender = offline_fusion.group.recommenders["shop"]
    assert isinstance(recommender, TrainedAdapter)
    record = AdapterRecord(backbone_id="big", backbone_fingerprint="0123")
    recommender.adapter = replace(recommender.adapter, record=record)
    with pytest.raises(LorarecError, match="belongs to backbone big"):
        Service(tiny_backbone, shop, None, database, fusion=offline_fusion)


def test_a_fusion_without_a_pool_is_refused(tiny_backbone: Backbone, shop: Dataset, shop_split: Split) -> None:
    fusion = fuse(shop, recommenders=["popularity", "tf-idf"], split=shop_split, config=FusionConfig(pool=0))
    with pytest.raises(LorarecError, match="cannot recommend, since it was not fitted to candidates of an index"):
        Service(tiny_backbone, shop, None, "sqlite://", fusion=fusion)


def store(shop: Dataset, folder: Path) -> list[str]:
    """Store a shop with a split and a fusion; return the options of `lorarec serve`."""
    dataset = shop.save(folder / "shop")
    load_split(dataset, negatives=5)
    fuse(dataset, None, ["popularity", "tf-idf"], folder / "fusion")
    return [str(folder / "shop"), "--fusion", str(folder / "fusion"), "--port", "0"]


def damage(folder: Path) -> None:
    (folder / "fusion" / "fusion.safetensors").write_bytes(b"damaged")


def change_dataset(folder: Path) -> None:
    record = folder / "fusion" / "fusion.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "dataset": {"name": "other", "fingerprint": "0"}}))


def remove_pool(folder: Path) -> None:
    record = folder / "fusion" / "fusion.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "pool": None}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "error: {fusion}/fusion.safetensors does not match fusion.json"),
        (change_dataset, "error: fusion {fusion} was fitted to other (0), not to shop"),
        (remove_pool, "error: this fusion cannot recommend"),
        (lambda folder: (folder / "fusion" / "fusion.json").unlink(), "error: {fusion} is not a fusion"),
    ],
)
def test_unusable_fusions_are_refused_in_one_line(
    shop: Dataset,
    backbone_folder: Path,
    change: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    refusal: Callable[..., str],
) -> None:
    options = store(shop, tmp_path)
    change(tmp_path)
    shown = refusal("serve", *options, "--backbone", backbone_folder)
    assert shown.startswith(message.format(fusion=tmp_path / "fusion"))


def test_adapters_or_a_fusion_must_be_given(shop: Dataset, tmp_path: Path, refusal: Callable[..., str]) -> None:
    shop.save(tmp_path / "shop")
    assert refusal("serve", tmp_path / "shop") == "error: there is nothing to serve: give --adapters or --fusion"


def test_added_and_renamed_items_are_titles_that_nobody_has_seen(service: Service, play: Any) -> None:
    recommended = {"user_id": "u03", "top": 10}

    async def scenario(client: httpx2.AsyncClient) -> None:
        async def post(path: str, body: Any) -> Any:
            return (await client.post(f"/v1/{path}", json=body)).json()

        before = await post("recommend", recommended)
        items = [each["item_id"] for each in before["ranking"]]
        added = {"item_id": "new", "title": "red sofa"}
        assert await post("items", {"items": [added]}) == {"added": 1}
        assert await post("recommend", recommended) == before
        by_adapter = await post("recommend", recommended | {"adapter": "general", "allow": ["new", "x01", "x02"]})
        assert "new" in {each["item_id"] for each in by_adapter["ranking"]}
        for path, body, field in (
            ("rank", {"history": ["x01"], "candidates": ["x02", "new"]}, "candidates.1"),
            ("explain", {"user_id": "u03", "item_id": "new"}, "item_id"),
            ("rerank", {"query": "red lamp", "documents": ["red sofa"], "model": "fusion"}, "documents.0"),
        ):
            refused = await client.post(f"/v1/{path}", json=body)
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
            assert "the fusion was fitted without item 'new'" in refused.json()["detail"]
        titled = [{"candidates": ["x02", "x03"], "history": ["x01", item]} for item in ("new", {"title": "red sofa"})]
        assert await post("rank", titled[0]) == await post("rank", titled[1])
        # An item with another title is not recommended, nor is one that is withdrawn.
        await client.patch(f"/v1/items/{items[0]}", json={"title": "red sofa"})
        await client.delete(f"/v1/items/{items[1]}")
        assert await post("recommend", recommended) == await post("recommend", recommended | {"deny": items[:2]})
        ranked = await client.post("/v1/rank", json={"history": ["x01"], "candidates": items[:2]})
        assert [each["field"] for each in ranked.json()["errors"]] == ["candidates.0"]
        assert (await client.post("/v1/rank", json={"history": ["x01"], "candidates": items[1:3]})).status_code == 200

    play(service, scenario)

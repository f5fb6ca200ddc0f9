"""Variants of an experiment answer the requests that name no adapter."""

import io
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec import Client
from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.ranking import Fusion
from lorarec.serving import logs
from lorarec.serving.config import ServiceConfig
from lorarec.serving.experiment import Experiment
from lorarec.serving.service import Service

CANDIDATES = ["x02", "x05", "x29"]
MIXTURE = {"general": 0.3, "specific": 0.7}
VARIANTS: list[dict[str, Any]] = [
    {"name": "control", "share": 0.5, "adapter": "general"},
    {"name": "mixed", "share": 0.5, "adapter": MIXTURE},
]
EXPERIMENT = Experiment.model_validate({"name": "homepage", "variants": VARIANTS})


def users_of(experiment: Experiment, variant: str) -> list[str]:
    """Users of the shop that are assigned to a variant."""
    return [user for user in (f"u{k:02}" for k in range(20)) if experiment.assign(user).name == variant]


@pytest.fixture
def make_variants(tiny_backbone: Backbone, offline: Any, adapters: Path, tmp_path: Path) -> Callable[..., Service]:
    """Make a service with an experiment."""

    def make(experiment: Experiment = EXPERIMENT, **options: Any) -> Service:
        database = f"sqlite:///{tmp_path / 'histories.db'}"
        config = ServiceConfig(wait_ms=50)
        return Service(tiny_backbone, offline.dataset, adapters, database, config, experiment=experiment, **options)

    return make


def test_every_answer_is_that_of_the_users_variant(
    make_variants: Callable[..., Service], offline: Any, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_variants()
    stream = io.StringIO()
    monkeypatch.setattr(logs.requests, "handlers", [logging.StreamHandler(stream)])
    logs.requests.setLevel(logging.INFO)
    mixtures = {"control": {"general": 1.0}, "mixed": MIXTURE}

    async def scenario(client: httpx2.AsyncClient) -> str:
        for name, mixture in mixtures.items():
            user = users_of(EXPERIMENT, name)[0]
            history = service.histories.history(user, 100)
            expected = offline.scores(mixture, user, history, CANDIDATES)
            answer = (await client.post("/v1/rank", json={"user_id": user, "candidates": CANDIDATES})).json()
            assert (answer["variant"], answer["mixture"]) == (name, mixture)
            found = {item["candidate"]: item["score"] for item in answer["ranking"]}
            np.testing.assert_allclose([found[place] for place in range(3)], expected, atol=1e-4)
            for path in ("/v1/recommend", "/v1/explain"):
                answer = (await client.post(path, json={"user_id": user})).json()
                assert (answer["variant"], answer["mixture"]) == (name, mixture)
            # A request with a history is assigned by the id that it gives, as a user with this id would be.
            given = {"history": ["x01"], "candidates": CANDIDATES, "assignment_id": user}
            assert (await client.post("/v1/rank", json=given)).json()["variant"] == name
            # A request that names an adapter has no part in the experiment.
            named = await client.post("/v1/rank", json=given | {"adapter": "specific"})
            assert (named.json()["variant"], named.json()["mixture"]) == (None, {"specific": 1.0})
        nobody = await client.post("/v1/rank", json={"history": ["x01"], "candidates": CANDIDATES})
        assert nobody.json()["variant"] == "control"
        rerank = await client.post("/v1/rerank", json={"query": "red lamp", "documents": ["a"]})
        assert (rerank.json()["variant"], rerank.json()["model"]) == ("control", "general")
        texts = await client.post("/rerank", json={"query": "red lamp", "texts": ["a"]})
        assert texts.headers["x-variant"] == "control"
        both = {"user_id": "u01", "candidates": CANDIDATES, "assignment_id": "u01"}
        refused = await client.post("/v1/rank", json=both)
        assert refused.status_code == 422
        assert "a request with user_id is assigned by that" in refused.text
        assert (await client.post("/v1/rank", json={"user_id": "nobody", "candidates": ["x02"]})).status_code == 404
        return (await client.get("/metrics")).text

    metrics = play(service, scenario)
    logs.requests.setLevel(logging.CRITICAL)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    ranked = [line.get("variant") for line in lines if line["path"] == "/v1/rank" and line["status"] == 200]
    assert ranked == ["control", "control", None, "mixed", "mixed", None, "control"]
    # Requests of a variant that fail are counted under it, too.
    assert set(re.findall(r'lorarec_requests_total\{.*variant="(.*)"\}', metrics)) == {"", "control", "mixed"}
    failed = EXPERIMENT.assign("nobody").name
    assert f'path="/v1/rank",status="404",variant="{failed}"' in metrics
    assert 'lorarec_request_seconds_count{path="/v1/rank",variant="mixed"} 2.0' in metrics


def test_the_requests_of_a_batch_have_variants_of_their_own(make_variants: Callable[..., Service], play: Any) -> None:
    service = make_variants()
    users = [users_of(EXPERIMENT, name)[0] for name in ("control", "mixed")]

    async def scenario(client: httpx2.AsyncClient) -> str:
        bodies = [{"user_id": user, "candidates": CANDIDATES} for user in users]
        for sent, variants in ((bodies, ["control", "mixed"]), (bodies[1:], ["mixed"])):
            requests = [{"path": "/v1/rank", "body": body} for body in sent]
            answers = (await client.post("/v1/batch", json={"requests": requests})).json()["responses"]
            assert [answer["body"]["variant"] for answer in answers] == variants
        return (await client.get("/metrics")).text

    metrics = play(service, scenario)
    for variant in ("several", "mixed"):
        assert f'path="/v1/batch",status="200",variant="{variant}"}} 1.0' in metrics


def test_a_fusion_answers_its_variant(
    tiny_backbone: Backbone,
    fusion_folder: Path,
    adapters: Path,
    shop: Dataset,
    shop_split: Split,
    tmp_path: Path,
    play: Any,
) -> None:
    experiment = Experiment.model_validate(
        {"name": "f", "variants": [VARIANTS[0], {"name": "fused", "share": 0.5, "fusion": True}]}
    )
    fusion = Fusion.load(fusion_folder, shop, tiny_backbone, shop_split)
    config, database = ServiceConfig(wait_ms=50, pool=12), f"sqlite:///{tmp_path / 'fused.db'}"
    service = Service(tiny_backbone, shop, adapters, database, config, fusion=fusion, experiment=experiment)

    async def scenario(client: httpx2.AsyncClient) -> None:
        for name, by_fusion in (("control", False), ("fused", True)):
            user = users_of(experiment, name)[0]
            for path in ("/v1/recommend", "/v1/explain"):
                answer = (await client.post(path, json={"user_id": user})).json()
                assert (answer["variant"], answer["fusion"]) == (name, by_fusion)

    play(service, scenario)


def test_adapters_of_variants_stay_loaded(
    make_variants: Callable[..., Service], adapters: Path, write_adapter: Any, offline: Any, play: Any
) -> None:
    service = make_variants()

    async def scenario(client: httpx2.AsyncClient) -> None:
        refused = await client.delete("/v1/adapters/specific")
        assert refused.status_code == 409
        assert "adapter 'specific' is needed by variant 'mixed' of the experiment" in refused.json()["detail"]
        assert (await client.delete("/v1/adapters/listed")).status_code == 204
        # A version with other prompts cannot be mixed with the other adapter of the variant.
        shutil.rmtree(adapters / "specific")
        shutil.copytree(adapters / "listed", adapters / "specific")
        refused = await client.post("/v1/adapters", json={"name": "specific"})
        assert refused.status_code == 422
        assert "variant 'mixed' needs it, and " in refused.json()["detail"]
        write_adapter(offline.backbone.model, adapters / "specific", 9, {"readout": "verdict", "options": {}})
        shutil.copy(adapters / "general" / "lorarec.json", adapters / "specific" / "lorarec.json")
        loaded = await client.post("/v1/adapters", json={"name": "specific"})
        assert loaded.status_code == 200, loaded.text
        user = users_of(EXPERIMENT, "mixed")[0]
        answer = (await client.post("/v1/rank", json={"user_id": user, "candidates": CANDIDATES})).json()
        assert answer["versions"]["specific"] == loaded.json()["fingerprint"]

    play(service, scenario)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"adapter": "nothing"}, "variant 'new' cannot be answered: adapter 'nothing' does not exist"),
        ({"adapter": {"general": 0.3, "specific": 0.3}}, "variant 'new' cannot be answered: .*sum to 1"),
        ({"adapter": {"general": 0.5, "listed": 0.5}}, "variant 'new' cannot be answered: "),
        ({"fusion": True}, "variant 'new' is answered by the fusion, but there is none: give option fusion"),
    ],
)
def test_variants_that_cannot_answer_are_refused(
    make_variants: Callable[..., Service], answer: dict[str, Any], message: str
) -> None:
    variants = [VARIANTS[0], {"name": "new", "share": 0.5, **answer}]
    with pytest.raises(LorarecError, match=message):
        make_variants(Experiment.model_validate({"name": "x", "variants": variants}))


def test_clients_have_the_variant(make_variants: Callable[..., Service], served: Any) -> None:
    with served(make_variants()) as url, Client(url) as client:
        for name in ("control", "mixed"):
            user = users_of(EXPERIMENT, name)[0]
            assert client.rank(CANDIDATES, user_id=user).variant == name
            assert client.recommend(history=["x01"], assignment_id=user).variant == name
            assert client.explain(history=["x01"], assignment_id=user).variant == name

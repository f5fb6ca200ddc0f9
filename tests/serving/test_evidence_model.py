"""Adapters whose prompts have words of a next-item model: a service and all offline calls give the same scores."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, EvidenceModelConfig, leave_one_out
from lorarec.ranking import Ranker, explain, rank_items, recommend, user_prompt
from lorarec.recommenders import make_evidence
from lorarec.serving.config import ServiceConfig
from lorarec.serving.service import Service

MODEL = asdict(EvidenceModelConfig(epochs=1, hidden_size=8, batch_size=8, max_history=3))
OPTIONS = {"evidence": True, "max_history": 2, "evidence_model": MODEL}


@pytest.fixture
def folder(tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path) -> Path:
    """Two adapters that read words of one model, and one that reads those of another model."""
    other = OPTIONS | {"evidence_model": MODEL | {"seed": 7}}
    for seed, (name, options) in enumerate({"shop": OPTIONS, "same": OPTIONS, "other": other}.items()):
        meta = {"readout": "verdict", "options": options}
        write_adapter(tiny_backbone.model, tmp_path / "adapters" / name, seed, meta)
    return tmp_path / "adapters"


@pytest.fixture
def stored(shop: Dataset, tmp_path: Path) -> Dataset:
    """The shop with a stored split, to whose training part models are fitted."""
    stored = shop.save(tmp_path / "shop")
    leave_one_out(stored, negatives=5).save(tmp_path / "shop" / "split")
    return Dataset.load(tmp_path / "shop")


def by_item(ranking: list[dict[str, Any]]) -> dict[str, float]:
    return {each["item_id"]: each["log_odds"] for each in ranking}


def test_a_service_and_offline_calls_give_the_same_scores(
    tiny_backbone: Backbone, folder: Path, stored: Dataset, tmp_path: Path, play: Callable[..., Any]
) -> None:
    user, own = "u03", replace(tiny_backbone, model=copy.deepcopy(tiny_backbone.model))
    with Ranker(own, folder / "shop") as ranker:
        recommended = recommend(ranker, stored, user, top_k=12, pool=12)
        expected = {each.item_id: each.log_odds for each in recommended}
        items = list(expected)
        assert len(items) == 12
        ranked = rank_items(ranker, stored, items, user=user)
        explained = explain(ranker, stored, user, items[5], pool=12)
        case = pl.DataFrame({"user_id": [user], "history": [stored.history(user)], "candidates": [items]})
        evidence = make_evidence(ranker.prompt, stored)
        scores = ranker.score_cases(case, stored.titles, evidence)[0]
        plain = ranker.examples(case, stored.titles, evidence)
    assert evidence is not None
    hints = evidence.hints(stored.history(user), items, user, max_history=2)
    assert any("," in hint for hint in hints)
    text = "".join(part for part, _ in user_prompt(own.tokenizer, ranker._adapter, stored, user, items[0]).text)
    assert text.endswith(f": {hints[0]}\n" if hints[0] else "\n")
    assert len(plain[0].branches) == 12
    np.testing.assert_allclose(scores, list(expected.values()), atol=1e-4)
    np.testing.assert_allclose(
        [each.score for each in sorted(ranked, key=lambda each: each.index)], list(expected.values()), atol=1e-4
    )
    assert explained.log_odds == pytest.approx(expected[items[5]], abs=1e-4)
    database = f"sqlite:///{tmp_path / 'histories.db'}"
    service = Service(tiny_backbone, stored, folder, database, ServiceConfig(pool=12), load=["shop"])

    async def scenario(client: httpx2.AsyncClient) -> None:
        answers = [
            (await client.post("/v1/recommend", json={"user_id": user, "top": 12})).json(),
            (await client.post("/v1/rank", json={"user_id": user, "candidates": items})).json(),
        ]
        for answer in answers:
            assert by_item(answer["ranking"]) == pytest.approx(expected, abs=1e-4)
        request = {"user_id": user, "candidates": items, "candidate": 5}
        answer = (await client.post("/v1/explain", json=request)).json()
        assert answer["candidate"]["log_odds"] == pytest.approx(expected[items[5]], abs=1e-4)
        effects = [each["score"] for each in answer["history"]]
        assert effects == pytest.approx([each.score for each in explained.influences], abs=1e-4)
        assert answer["evidence"] == {"shop": hints[5]}

    play(service, scenario)


def test_a_model_is_fitted_before_requests_are_served(
    tiny_backbone: Backbone,
    folder: Path,
    stored: Dataset,
    tmp_path: Path,
    play: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("LORAREC_CACHE", str(tmp_path / "cache"))
    service = Service(tiny_backbone, stored, folder, f"sqlite:///{tmp_path / 'histories.db'}", load=["shop"])
    assert caplog.text.count("fitting sasrec") == 1

    async def scenario(client: httpx2.AsyncClient) -> None:
        refused = await client.post("/v1/adapters", json={"name": "other"})
        assert refused.status_code == 422
        assert "a next-item model, which is fitted when the service starts" in refused.json()["detail"]
        assert (await client.post("/v1/adapters", json={"name": "same"})).status_code == 200
        mixture = {"shop": 0.4, "same": 0.6}
        request = {"user_id": "u03", "candidates": ["x02", "x29"], "adapter": mixture}
        assert (await client.post("/v1/rank", json=request)).status_code == 200

    play(service, scenario)
    assert caplog.text.count("fitting sasrec") == 1
    service = Service(tiny_backbone, stored, folder, f"sqlite:///{tmp_path / 'again.db'}")
    assert caplog.text.count("fitting sasrec") == 2
    assert json.loads((folder / "other" / "lorarec.json").read_text())["options"]["evidence_model"]["seed"] == 7

    async def mixed(client: httpx2.AsyncClient) -> None:
        request = {"user_id": "u03", "candidates": ["x02", "x29"], "adapter": {"shop": 0.4, "other": 0.6}}
        answer = await client.post("/v1/rank", json=request)
        assert answer.status_code == 422
        assert "different values of evidence_model" in answer.json()["detail"]

    play(service, mixed)

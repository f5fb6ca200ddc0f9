"""Attributions over HTTP equal the offline Ranker's differences."""

from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.ranking import log_prior
from lorarec.scoring import posterior
from lorarec.serving.service import Service

CANDIDATES = ["x02", "x05", "x29"]


@pytest.mark.parametrize("adapter", [{"general": 0.3, "specific": 0.7}, {"listed": 1.0}, {}])
def test_as_leaving_out_each_item_offline(service: Service, offline: Any, play: Any, adapter: dict[str, float]) -> None:
    """The prompts of some adapters show the latest four items only."""
    history = service.histories.history("u03", 100)
    shown = history[-4:] if "general" in adapter else history

    def expected(past: list[str]) -> np.ndarray:
        scores = offline.scores(adapter, "u03", past, CANDIDATES)
        return np.array([scores[2], posterior(scores)[2]])

    whole = expected(history)
    without = [whole - expected([other for other in history if other != item]) for item in shown]
    (word,) = offline.evidence.hints(shown, ["x29"], "u03")
    words = dict.fromkeys(adapter, word) if "general" in adapter else {}

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"user_id": "u03", "candidates": CANDIDATES, "candidate": 2, "adapter": adapter}
        found = (await client.post("/v1/explain", json=body)).json()
        assert (found["candidate"]["item_id"], found["mixture"]) == ("x29", adapter)
        assert found["evidence"] == words
        actual = [found["candidate"]["score"], found["candidate"]["probability"]]
        np.testing.assert_allclose(actual, whole, atol=1e-4)
        assert [item["item_id"] for item in found["history"]] == shown
        actual = [[item["score"], item["probability"]] for item in found["history"]]
        np.testing.assert_allclose(actual, without, atol=1e-4)

    play(service, scenario)


def test_a_recommendation_of_an_adapter_is_explained_with_the_prior_of_the_index(
    service: Service, offline: Any, play: Any
) -> None:
    history = service.histories.history("u03", 100)
    pool = [each.item_id for each in service.catalogue.state.adapters.index.propose(history, 100)]

    def expected(past: list[str], place: int) -> np.ndarray:
        scores = offline.scores({"general": 1.0}, "u03", past, pool) + log_prior(len(pool))
        return np.array([scores[place], posterior(scores)[place]])

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"user_id": "u03", "adapter": "general"}
        best = (await client.post("/v1/recommend", json=body)).json()["ranking"]
        for change, item in [({}, best[0]), ({"item_id": best[2]["item_id"]}, best[2])]:
            found = (await client.post("/v1/explain", json={**body, **change})).json()
            assert found["candidate"].pop("parts") == item["parts"] == {}
            assert found["candidate"] == pytest.approx({k: v for k, v in item.items() if k != "parts"}, abs=1e-6)
            place = item["candidate"]
            whole = expected(history, place)
            for past in found["history"]:
                without = expected([other for other in history if other != past["item_id"]], place)
                np.testing.assert_allclose([past["score"], past["probability"]], whole - without, atol=1e-4)

    play(service, scenario)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"history": []}, "history", "an empty history explains nothing"),
        ({"candidate": 3}, "candidate", "there are 3 candidates"),
        ({"candidates": CANDIDATES * 40}, "candidates", "at most 100"),
        ({"item_id": "x05"}, None, "item_id, allow and deny are for recommendations"),
        ({"deny": ["x05"]}, None, "item_id, allow and deny are for recommendations"),
        ({"candidates": None, "candidate": 0}, None, "candidate is an index in candidates"),
        ({"candidates": None, "item_id": "nothing"}, "item_id", "item 'nothing' is not in the catalogue"),
        ({"candidates": None, "item_id": "x04", "history": ["x04"]}, "item_id", "the history has item 'x04'"),
        ({"candidates": None, "allow": []}, None, "nothing is left to recommend"),
    ],
)
def test_bad_input(play_shared: Any, change: dict[str, Any], field: str, message: str) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": [{"title": "red lamp"}], "candidates": CANDIDATES, "adapter": "general"}
        assert (await client.post("/v1/explain", json=body)).json()["history"][0]["item_id"] is None
        answer = await client.post("/v1/explain", json={**body, **change})
        assert answer.status_code == 422
        assert [each["field"] for each in answer.json()["errors"]] == ([] if field is None else [field])
        assert message in answer.json()["detail"]

    play_shared(scenario)

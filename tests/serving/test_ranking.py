"""Scores equal those of the offline Ranker, also in shared batches."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest

from lorarec.serving.service import Service

MIXTURES: list[dict[str, float]] = [
    {"general": 1.0},
    {"specific": 1.0},
    {"general": 0.3, "specific": 0.7},
    {"general": 0.5, "specific": 0.5},
    {"listed": 1.0},
    {"listed": 0.9, "listed2": 0.1},
    {},
    {"general": 0.0, "specific": 1.0},
]


def served(answer: httpx2.Response, count: int) -> np.ndarray:
    """Return the scores in the order of the request's candidates."""
    assert answer.status_code == 200, answer.text
    scores = np.full(count, np.nan)
    for item in answer.json()["ranking"]:
        scores[item["candidate"]] = item["score"]
    return scores


def test_requests_that_share_batches_get_the_offline_scores(service: Service, offline: Any, play: Any) -> None:
    cases = []
    for number in range(16):
        mixture = MIXTURES[number % len(MIXTURES)]
        candidates = [f"x{(number * 3 + k * 5) % 30:02}" for k in range(2 + number % 5)]
        user = f"u{number:02}" if number % 2 else None
        history = service.histories.history(f"u{number:02}", 100)
        cases.append((mixture, user, history, candidates))
    expected = [offline.scores(*case) for case in cases]

    async def scenario(client: httpx2.AsyncClient) -> None:
        def sent(mixture: Any, user: str | None, history: list[str], candidates: list[str]) -> dict[str, Any]:
            whose = {"user_id": user} if user else {"history": history}
            return {**whose, "candidates": candidates, "adapter": mixture}

        for _ in range(3):
            answers = await asyncio.gather(*(client.post("/v1/rank", json=sent(*case)) for case in cases))
            for answer, case, scores in zip(answers, cases, expected, strict=True):
                np.testing.assert_allclose(served(answer, len(scores)), scores, atol=1e-4)
                ranking = answer.json()["ranking"]
                assert [item["item_id"] for item in ranking] == [case[3][i] for i in np.argsort(-scores, kind="stable")]
                assert sum(item["probability"] for item in ranking) == pytest.approx(1, abs=1e-4)
                assert answer.json()["mixture"] == case[0]

    play(service, scenario)
    sizes = {s.name: s.value for m in service.metrics.batch_size.collect() for s in m.samples if not s.labels}
    assert sizes["lorarec_batch_size_sum"] == 48
    assert sizes["lorarec_batch_size_count"] < 24


def test_one_at_a_time_gives_the_same_scores(make_service: Callable[..., Service], offline: Any, play: Any) -> None:
    service = make_service(token_budget=1)
    candidates = ["x01", "x05", "x29"]

    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": ["x02"], "candidates": candidates, "adapter": "general"}
        for answer in await asyncio.gather(*(client.post("/v1/rank", json=body) for _ in range(3))):
            expected = offline.scores({"general": 1.0}, None, ["x02"], candidates)
            np.testing.assert_allclose(served(answer, 3), expected, atol=1e-4)

    play(service, scenario)


def test_a_user_who_asks_again_is_ranked_on_the_cached_prompt(
    make_service: Callable[..., Service], offline: Any, play: Any
) -> None:
    """The prompt is read once for each mixture; explanations read shortened histories, and an event another prompt."""
    service = make_service(prompt_cache=16)
    history = [*offline.dataset.interactions.filter(user_id="u03")["item_id"]]
    pages = [[f"x{place:02}" for place in range(first, first + 6)] for first in (0, 6, 12)]

    def counts() -> tuple[float | None, ...]:
        names = ("hits", "misses")
        return tuple(service.metrics.registry.get_sample_value(f"lorarec_prompt_cache_{name}_total") for name in names)

    async def scenario(client: httpx2.AsyncClient) -> None:
        for mixture in ({"general": 1.0}, {"general": 0.3, "specific": 0.7}):
            for page in pages:
                body = {"user_id": "u03", "candidates": page, "adapter": mixture}
                expected = offline.scores(mixture, "u03", history, page)
                np.testing.assert_allclose(served(await client.post("/v1/rank", json=body), 6), expected, atol=1e-4)
        assert counts() == (4, 2)
        body = {"user_id": "u03", "candidates": pages[0], "adapter": "general", "candidate": 1}
        assert (await client.post("/v1/explain", json=body)).status_code == 200
        assert counts() == (5, 2)
        await client.post("/v1/events", json={"events": [{"user_id": "u03", "item_id": "x28"}]})
        body = {"user_id": "u03", "candidates": pages[0], "adapter": "general"}
        expected = offline.scores({"general": 1.0}, "u03", [*history, "x28"], pages[0])
        np.testing.assert_allclose(served(await client.post("/v1/rank", json=body), 6), expected, atol=1e-4)
        assert counts() == (5, 3)

    play(service, scenario)


def test_events_change_the_next_answer(service: Service, offline: Any, play: Any) -> None:
    candidates = ["x01", "x05", "x29"]
    body = {"user_id": "u03", "candidates": candidates, "adapter": {"general": 0.3, "specific": 0.7}}

    async def scenario(client: httpx2.AsyncClient) -> None:
        before = served(await client.post("/v1/rank", json=body), 3)
        events = [{"user_id": "u03", "item_id": "x28"}, {"user_id": "u03", "item_id": "x11", "event_id": "e1"}]
        for known in (0, 1):
            stored = await client.post("/v1/events", json={"events": events[known:]})
            assert stored.json() == {"stored": 2 - 2 * known, "known": known}
        after = served(await client.post("/v1/rank", json=body), 3)
        assert np.abs(after - before).max() > 1e-3
        history = [*offline.dataset.interactions.filter(user_id="u03")["item_id"], "x28", "x11"]
        np.testing.assert_allclose(after, offline.scores(body["adapter"], "u03", history, candidates), atol=1e-4)

    play(service, scenario)


def test_a_new_user_begins_with_events(service: Service, play: Any) -> None:
    body = {"user_id": "newcomer", "candidates": ["x01", "x02"], "adapter": "general"}

    async def scenario(client: httpx2.AsyncClient) -> None:
        refused = await client.post("/v1/rank", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (404, "user_id")
        await client.post("/v1/events", json={"events": [{"user_id": "newcomer", "item_id": "x03"}]})
        served(await client.post("/v1/rank", json=body), 2)

    play(service, scenario)


def test_more_items_than_the_pool_has_are_refused(make_service: Callable[..., Service], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"user_id": "u03", "adapter": "specific"}
        for given in ({}, {"top": 4}):
            assert len((await client.post("/v1/recommend", json=body | given)).json()["ranking"]) == 4
        refused = await client.post("/v1/recommend", json=body | {"top": 5})
        assert refused.status_code == 422
        (fault,) = refused.json()["errors"]
        assert fault["field"] == "top"
        assert "a pool of 4 candidates: ask for at most 4 items" in str(fault)

    play(make_service(pool=4), scenario)


def test_recommendations_are_of_the_catalogue_and_unseen(service: Service, offline: Any, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"user_id": "u03", "top": 5, "adapter": "specific"}
        found = (await client.post("/v1/recommend", json=body)).json()["ranking"]
        seen = service.histories.history("u03", 100)
        assert len(found) == 5
        assert not {item["item_id"] for item in found} & set(seen)
        expected = offline.scores({"specific": 1.0}, "u03", seen, [item["item_id"] for item in found])
        prior = [-np.log(1 + item["candidate"]) for item in found]
        np.testing.assert_allclose([item["score"] for item in found], expected + np.array(prior), atol=1e-4)
        np.testing.assert_allclose([item["log_odds"] for item in found], expected, atol=1e-4)
        np.testing.assert_allclose([item["log_prior"] for item in found], prior, atol=1e-6)
        await client.post("/v1/events", json={"events": [{"user_id": "u03", "item_id": found[0]["item_id"]}]})
        again = (await client.post("/v1/recommend", json=body)).json()["ranking"]
        assert found[0]["item_id"] not in {item["item_id"] for item in again}
        denied = {**body, "deny": [item["item_id"] for item in again]}
        others = (await client.post("/v1/recommend", json=denied)).json()["ranking"]
        assert not {item["item_id"] for item in others} & set(denied["deny"])
        only = {**body, "allow": [again[1]["item_id"], "of no item", found[0]["item_id"]]}
        left = (await client.post("/v1/recommend", json=only)).json()["ranking"]
        assert [item["item_id"] for item in left] == [again[1]["item_id"]]
        everything = {"history": list(offline.dataset.titles), "adapter": "specific"}
        assert (await client.post("/v1/recommend", json=everything)).json()["ranking"] == []

    play(service, scenario)


@pytest.mark.parametrize(
    ("adapter", "own", "other"),
    [
        ("general", "log_odds", "log_likelihood"),
        ("listed", "log_likelihood", "log_odds"),
        ({}, "log_odds", "log_likelihood"),
    ],
)
def test_a_score_is_the_sum_of_its_parts(
    play_shared: Any, adapter: str | dict[str, float], own: str, other: str
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": ["x02"], "candidates": ["x01", "x05"], "adapter": adapter}
        for path in ("/v1/rank", "/v1/explain"):
            answer = (await client.post(path, json=body)).json()
            for item in [answer["candidate"]] if path == "/v1/explain" else answer["ranking"]:
                assert (item["log_prior"], item[other]) == (0, None)
                assert item["score"] == item[own]
        described = (await client.get("/openapi.json")).json()["components"]["schemas"]["RankedItem"]["properties"]
        assert "`log_odds` or `log_likelihood` plus `log_prior`" in described["score"]["description"]
        assert {"log_odds", "log_likelihood", "log_prior"} <= set(described)

    play_shared(scenario)


def test_titles_stand_for_items_and_come_back_as_data(service: Service, play: Any) -> None:
    script = "<script>alert(1)</script> {{ 7 * 7 }}"
    body = {"history": [{"title": "red lamp"}, "x01"], "candidates": ["x02", {"title": script}], "adapter": "general"}

    async def scenario(client: httpx2.AsyncClient) -> None:
        refused = await client.post("/v1/rank", json={**body, "history": [script]})
        assert script in refused.json()["detail"]
        answer = await client.post("/v1/rank", json=body)
        media_types = [each.headers["content-type"] for each in (refused, answer)]
        assert media_types == ["application/problem+json", "application/json"]
        found = {item["candidate"]: item for item in answer.json()["ranking"]}
        assert (found[1]["title"], found[1]["item_id"]) == (script, None)
        assert found[0]["item_id"] == "x02"

    play(service, scenario)

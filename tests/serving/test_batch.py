"""Batches: each request is answered as it is by itself, whatever is wrong with the others."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import httpx2
import pytest
from sqlalchemy.exc import OperationalError

from lorarec import Client, LorarecError, ServiceError
from lorarec.serving import client_calls
from lorarec.serving.answers import Ranking
from lorarec.serving.batch import MAX_BATCH
from lorarec.serving.service import Service

RANK = {"history": ["x01"], "candidates": ["x02", "x03", "x29"], "adapter": {"general": 0.3, "specific": 0.7}}
RECOMMEND = {"user_id": "u03", "top": 4, "adapter": "specific", "deny": ["x29"]}


def one(path: str, body: Any) -> dict[str, Any]:
    return {"path": path, "body": body}


def test_each_request_is_answered_as_by_itself(service: Service, play: Any) -> None:
    sent = [
        one("/v1/rank", RANK),
        one("/v1/rank", RANK | {"candidates": ["no", "x01", "nor"]}),
        one("/v1/recommend", RECOMMEND),
        one("/v1/recommend", RECOMMEND | {"user_id": "nobody"}),
        one("/v1/rank", RANK | {"candidates": [], "history": 3}),
        one("/v1/rank", RANK | {"adapter": "listed"}),
        one("/v1/recommend", []),
        one("/v1/rank", None),
        one("/v1/recommend", RANK),
    ]

    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/batch", json={"requests": sent}, headers={"x-request-id": "mine"})
        responses = answer.raise_for_status().json()["responses"]
        assert [each["status"] for each in responses] == [200, 422, 200, 404, 422, 200, 422, 422, 422]
        for request, response in zip(sent, responses, strict=True):
            alone = await client.post(request["path"], json=request["body"], headers={"x-request-id": "mine"})
            if request["body"] is not None:  # httpx sends no body then
                assert alone.status_code == response["status"]
            if response["status"] != 200:
                assert response["body"]["status"] == response["status"]
                if request["body"] is not None:
                    assert response["body"] == alone.json()
                continue
            found, expected = response["body"], alone.json()
            for mine, other in zip(found["ranking"], expected["ranking"], strict=True):
                assert mine.pop("parts") == other.pop("parts") == {}
                assert mine == pytest.approx(other, abs=1e-5)
            assert found | {"ranking": []} == expected | {"ranking": []}

    play(service, scenario)


def test_a_batch_shares_passes_and_counts_every_request(make_service: Callable[..., Service], play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/batch", json={"requests": [one("/v1/rank", RANK)] * 8})
        responses = answer.json()["responses"]
        assert sorted(each["status"] for each in responses) == [200] * 5 + [429] * 3
        for each in responses:
            assert (each["retry_after"] is not None) == (each["status"] == 429)
        # All places are free again.
        assert (await client.post("/v1/rank", json=RANK)).status_code == 200

    service = make_service(queue=5)
    play(service, scenario)
    sizes = {s.name: s.value for m in service.metrics.batch_size.collect() for s in m.samples if not s.labels}
    assert sizes["lorarec_batch_size_sum"] == 6
    assert sizes["lorarec_batch_size_count"] < 6


def test_many_candidates_of_a_batch_are_refused_like_those_of_single_requests(
    make_service: Callable[..., Service], play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        threads = service.batcher._threads

        def slow(score: Callable[[Any], Any], requests: Any) -> Any:
            time.sleep(0.3)
            return score(requests)

        for thread, score in threads.items():
            monkeypatch.setitem(threads, thread, partial(slow, score))
        service.batcher._seconds, service.batcher._tokens = 1.0, 1.0  # a second for each token
        answer = await client.post("/v1/batch", json={"requests": [one("/v1/rank", RANK)] * 6})
        statuses = [each["status"] for each in answer.json()["responses"]]
        assert 0 < statuses.count(429) < 6
        assert set(statuses) == {200, 429}

    service = make_service(max_wait=0.5, wait_ms=0, token_budget=1)
    play(service, scenario)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"requests": []}, "requests"),
        ({"requests": [one("/v1/rank", RANK)] * (MAX_BATCH + 1)}, "requests"),
        ({"requests": [one("/v1/events", {})]}, "requests.0.path"),
        ({"requests": [{"path": "/v1/rank"}]}, "requests.0.body"),
        ({"requests": [one("/v1/rank", RANK) | {"id": 1}]}, "requests.0.id"),
    ],
)
def test_what_is_no_batch_is_refused(play_shared: Any, body: Any, field: str) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/batch", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
        assert (await client.get("/v1/batch")).status_code == 405
        assert (await client.post("/v1/batch", content=b"{", headers={"content-type": "text/plain"})).status_code == 415

    play_shared(scenario)


def test_errors_of_one_request_are_its_own(service: Service, play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [RuntimeError("a secret"), OperationalError("SELECT 1", None, Exception("gone"))]

    async def broken(*_: Any) -> Any:
        raise errors.pop(0)

    monkeypatch.setattr(service, "recommend", broken)

    async def scenario(client: httpx2.AsyncClient) -> None:
        sent = [one("/v1/recommend", RECOMMEND), one("/v1/recommend", RECOMMEND), one("/v1/rank", RANK)]
        answer = await client.post("/v1/batch", json={"requests": sent})
        assert [each["status"] for each in answer.json()["responses"]] == [500, 503, 200]
        assert answer.json()["responses"][1]["retry_after"] == 1
        assert "secret" not in answer.text

    play(service, scenario)


def test_clients_rank_many(
    service: Service, served: Callable[..., AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_calls, "MAX_BATCH", 2)
    with served(service) as url, Client(url) as client:
        rankings = client.rank_many([RANK, RANK | {"candidates": ["no"]}, RANK])
        assert [type(each) for each in rankings] == [Ranking, ServiceError, Ranking]
        single = client.rank(**RANK)  # type: ignore[arg-type]
        assert [each.candidate for each in rankings[0].ranking] == [each.candidate for each in single.ranking]
        refused = rankings[1]
        assert isinstance(refused, ServiceError)
        assert (refused.status, refused.errors[0].field) == (422, "candidates.0")
        assert refused.request_id
        recommended, refused = client.recommend_many([RECOMMEND, {"user_id": "nobody", "adapter": "general"}])
        assert isinstance(recommended, Ranking)
        assert len(recommended.ranking) == 4
        assert isinstance(refused, ServiceError)
        assert (refused.status, refused.retry_after) == (404, None)
        assert client.rank_many([]) == []


def test_clients_send_batches_that_the_service_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"history": [], "candidates": [{"title": "a"}] * 3000}
    sent = [RANK, large, large, *[RANK] * 70]
    calls = list(client_calls.batches("/v1/rank", sent))
    counts = [len(call.body["requests"]) for call in calls if call.body]
    assert counts == [2, 1 + 63, 7]
    with pytest.raises(LorarecError, match="not JSON"):
        list(client_calls.batches("/v1/rank", [{"candidates": {1}}]))

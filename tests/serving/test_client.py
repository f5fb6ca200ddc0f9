"""The clients of a running service: answers, errors, and when a request is sent again."""

import asyncio
import dataclasses
import inspect
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from operator import methodcaller
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

import lorarec
from lorarec import AsyncClient, Client, LorarecError, ServiceError
from lorarec.serving import (
    adapter_schemas,
    answers,
    batch,
    client_calls,
    item_schemas,
    rerank,
    response_schemas,
    user_schemas,
)
from lorarec.serving.answer_reading import read_answer
from lorarec.serving.service import Service

#: Classes of answers by the schema of the response.
SCHEMAS: dict[type[BaseModel], type[Any]] = {
    response_schemas.RankResponse: answers.Ranking,
    response_schemas.RankedItem: answers.RankedItem,
    response_schemas.UserWeights: answers.UserWeights,
    response_schemas.ExplainResponse: answers.ScoreExplanation,
    response_schemas.ItemInfluence: answers.ItemInfluence,
    response_schemas.EventsResponse: answers.StoredEvents,
    response_schemas.ItemsResponse: answers.CatalogueItems,
    response_schemas.CatalogueItem: answers.CatalogueItem,
    response_schemas.ItemsPage: answers.ItemsPage,
    response_schemas.UsersResponse: answers.Users,
    item_schemas.ItemDetails: answers.ItemDetails,
    item_schemas.AddedItems: answers.AddedItems,
    user_schemas.StoredUser: answers.StoredUser,
    user_schemas.StoredInteraction: answers.StoredInteraction,
    user_schemas.DeletedUser: answers.DeletedUser,
    user_schemas.LoggedAnswer: answers.LoggedAnswer,
    adapter_schemas.AdaptersResponse: answers.Adapters,
    adapter_schemas.AliasResponse: answers.Alias,
    adapter_schemas.AdapterInfo: answers.AdapterInfo,
    adapter_schemas.AdapterDetails: answers.AdapterDetails,
    adapter_schemas.LayerWeights: answers.LayerWeights,
    adapter_schemas.FusionInfo: answers.FusionInfo,
    response_schemas.HealthResponse: answers.Health,
    response_schemas.FieldError: client_calls.FieldError,
    batch.BatchResponse: answers.BatchAnswers,
    batch.BatchedResponse: answers.BatchedAnswer,
    rerank.RerankResponse: answers.Reranking,
    rerank.RerankResult: answers.RerankResult,
    rerank.RerankDocument: answers.RerankDocument,
    rerank.RerankUsage: answers.RerankUsage,
}
EVENTS = [{"user_id": "u01", "item_id": "x29", "event_id": "click 1"}]
PROBLEM = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "user 'a' has no history"}


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_answers_have_the_fields_of_the_responses(schema: type[BaseModel]) -> None:
    assert {each.name for each in dataclasses.fields(SCHEMAS[schema])} == set(schema.model_fields)
    for example in (schema.model_config.get("json_schema_extra") or {}).get("examples", ()):
        whole = schema.model_validate(example).model_dump()
        assert dataclasses.asdict(read_answer(SCHEMAS[schema], whole)) == whole


def test_both_clients_have_the_same_calls() -> None:
    calls, others = (
        {name: each for name, each in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}
        for client in (Client, AsyncClient)
    )
    assert set(calls) == set(others)
    for name, call in calls.items():
        other = getattr(AsyncClient, name)
        assert inspect.iscoroutinefunction(other) or inspect.isasyncgenfunction(other)
        assert inspect.signature(call).parameters == inspect.signature(other).parameters
        iterators = (Iterator[answers.ItemsPage], Iterator[answers.Users], Iterator[answers.Adapters])
        if (result := inspect.signature(call).return_annotation) not in iterators:
            assert result == inspect.signature(other).return_annotation


def test_a_client_needs_neither_torch_nor_the_packages_of_the_service() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    code = "import sys, lorarec; lorarec.Client(); lorarec.AsyncClient(); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert not {"torch", "polars", "fastapi", "pydantic", "sqlalchemy", "uvicorn"} & set(done.stdout.split())


@pytest.fixture
def url(service: Service, served: Callable[..., AbstractContextManager[str]]) -> Iterator[str]:
    """URL of a running service with the key `secret`."""
    with served(service, "secret") as url:
        yield url


def test_every_call_of_a_running_service(url: str, offline: Any) -> None:
    mixture = {"general": 0.3, "specific": 0.7}
    with Client(f"{url}/", "secret") as client:
        ranking = client.rank(["x05", "x29"], user_id="u01", adapter=mixture)
        history = [item.item_id for item in client.history("u01", 100)][::-1]
        scores = offline.scores(mixture, "u01", history, ["x05", "x29"])
        for item in ranking.ranking:
            assert math.isclose(item.score, scores[item.candidate], abs_tol=1e-4)
        assert ranking.mixture == mixture
        best = client.recommend(user_id="u01", adapter="general", top=3, deny=["x29"], at_most={"title": 1})
        assert len(best.ranking) == 3
        explained = client.explain(best.ranking[0].item_id, user_id="u01", adapter="general", deny=["x29"])
        assert explained.candidate.item_id == best.ranking[0].item_id
        assert len(explained.history) == 4
        given = client.explain(candidates=["x05", {"title": "a"}], candidate=1, history=["x01"], adapter="general")
        assert given.candidate.title == "a"
        reranked = client.rerank("red lamp", ["red chair", {"text": "a"}], model="general", return_documents=True)
        assert {each.document.text for each in reranked.results if each.document} == {"red chair", "a"}
        assert client.store_events(EVENTS) == answers.StoredEvents(stored=1, known=0)
        assert client.store_events(EVENTS) == answers.StoredEvents(stored=0, known=1)
        assert client.history("u01", 1) == [answers.CatalogueItem("x29", "white brush")]
        stored = client.stored_user("u01")
        assert (stored.user_id, stored.events[-1].item_id, stored.events[-1].event_id) == ("u01", "x29", "click 1")
        event = {"user_id": "a/b ?#", "item_id": "x01"}
        assert [client.store_events([event], idempotency_key="k").stored for _ in range(2)] == [1, 0]
        assert client.delete_user("a/b ?#") == 1
        assert client.items("white brush")[0].item_id == "x29"
        assert client.users("u01") == ["u01"]
        assert [len(page.items) for page in client.item_pages("lamp", limit=2)] == [2, 2, 1]
        assert [user for page in client.user_pages(limit=7) for user in page.users] == client.users(limit=100)
        assert [page.available for page in client.adapter_pages(limit=3)][1] == ["specific"]
        client.unload_adapter("listed2")
        assert {each.name for each in client.adapters().loaded} == {"general", "specific", "listed"}
        assert client.load_adapter("listed2").readout == "likelihood"
        assert client.add_items([{"item_id": "a/b ?", "title": "violet lamp"}]) == 1
        assert client.change_item("a/b ?", title="violet sofa").title == "violet sofa"
        assert client.item("a/b ?") == answers.ItemDetails("a/b ?", "violet sofa", {}, False)
        client.withdraw_item("a/b ?")
        assert client.item("a/b ?").withdrawn
        assert client.set_alias("a/b ?", "general") == answers.Alias("a/b ?", "general")
        assert client.adapters().aliases == {"a/b ?": "general"}
        client.delete_alias("a/b ?")
        assert client.adapter("general").layers[0].weights == {"general": 1.0}
        assert client.health() == answers.Health("ok", "ok", 4, False)

    async def ask() -> list[Any]:
        async with AsyncClient(url, "secret") as client:
            same = (client.rank(["x05", "x29"], history=history, adapter=mixture) for _ in range(4))
            found = [user async for page in client.user_pages("u01") for user in page.users]
            assert [page.total async for page in client.item_pages("lamp", limit=2)] == [5, 5, 5]
            assert [len(page.available) async for page in client.adapter_pages(limit=3)] == [3, 1]
            return [*await asyncio.gather(*same), found, await client.store_events(EVENTS)]

    *rankings, users, stored = asyncio.run(ask())
    assert [item.candidate for item in rankings[0].ranking] == [item.candidate for item in ranking.ranking]
    assert all(each.ranking == rankings[0].ranking for each in rankings)
    assert (users, stored) == (["u01"], answers.StoredEvents(stored=0, known=1))


def test_errors_have_the_problem_details(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(url, "secret") as client:
        with pytest.raises(ServiceError) as refused:
            client.rank(["x05", "nothing"], history=["none"], adapter="general")
        error = refused.value
        assert (error.status, error.retry_after) == (422, None)
        assert [each.field for each in error.errors] == ["candidates.1", "history.0"]
        assert "'nothing' is not in the catalogue" in str(error)
        assert len(error.request_id or "") == 32
        with pytest.raises(LorarecError, match="user 'a' has no history"):
            client.history("a")
        with pytest.raises(ServiceError, match="answered 404") as unknown:
            client.adapter("a b?")
        assert unknown.value.errors[0].field == "name"
        assert "'a b?'" in unknown.value.detail
    monkeypatch.delenv("LORAREC_API_KEY", raising=False)
    with Client(url) as client, pytest.raises(ServiceError, match="401: missing or wrong API key"):
        client.users()
    monkeypatch.setenv("LORAREC_API_KEY", "secret")
    with Client(url) as client:
        assert client.users("u01") == ["u01"]


class Script:
    """A server that answers in turn with responses and errors of the connection, and a clock that does not wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: httpx2.Response | Exception) -> None:
        self.steps = list(steps)
        self.requests: list[httpx2.Request] = []
        self.waits: list[float] = []
        monkeypatch.setattr("time.sleep", self.waits.append)

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        monkeypatch.setattr("lorarec.serving.async_client.asyncio.sleep", sleep)
        monkeypatch.setattr("random.uniform", lambda low, high: high)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return httpx2.Response(step.status_code, headers=step.headers, content=step.content)

    def run(self, call: Callable[[Any], Any], asynchronous: bool, **options: Any) -> Any:
        transport = httpx2.MockTransport(self._answer)
        if not asynchronous:
            with Client("http://service", transport=transport, **options) as client:
                return call(client)

        async def ask() -> Any:
            async with AsyncClient("http://service", transport=transport, **options) as client:
                return await call(client)

        return asyncio.run(ask())


def busy(status: int = 429, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers=headers, json=PROBLEM | {"status": status, "detail": "try later"})


USERS = httpx2.Response(200, json={"users": ["a"], "total": 1, "next": None})
BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@BOTH
def test_a_request_is_sent_again_when_the_service_says(monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    reset = httpx2.ReadError("reset")
    script = Script(monkeypatch, busy(**{"retry-after": "7"}), busy(503), reset, USERS)
    assert script.run(lambda client: client.users(), asynchronous) == ["a"]
    assert script.waits == [7, 1, 2]
    assert len({request.headers["x-request-id"] for request in script.requests}) == 1


@BOTH
def test_retries_end(monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    script = Script(monkeypatch, *[busy(**{"retry-after": "1"}) for _ in range(3)])
    with pytest.raises(ServiceError, match="answered 429: try later") as refused:
        script.run(lambda client: client.users(), asynchronous, retries=2)
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    assert script.waits == [1, 1]


@BOTH
@pytest.mark.parametrize(
    "step",
    [
        *(busy(status) for status in (400, 401, 404, 409, 422, 500, 501)),
        busy(**{"retry-after": "3600"}),
        httpx2.ReadTimeout("slow"),
        httpx2.UnsupportedProtocol("ftp"),
        httpx2.DecodingError("no gzip"),
    ],
    ids=str,
)
def test_what_would_fail_again_is_sent_once(monkeypatch: pytest.MonkeyPatch, asynchronous: bool, step: Any) -> None:
    script = Script(monkeypatch, step)
    with pytest.raises(ServiceError):
        script.run(lambda client: client.users(), asynchronous)
    assert script.waits == []


@BOTH
def test_only_events_with_ids_are_sent_again(monkeypatch: pytest.MonkeyPatch, asynchronous: bool) -> None:
    some = [*EVENTS, {"user_id": "u01", "item_id": "x29"}]
    for events, key, repeated in ((EVENTS, None, True), (some, None, False), (some, "key", True)):
        for step in (busy(503), httpx2.ReadError("reset")):
            script = Script(monkeypatch, step, httpx2.Response(200, json={"stored": 1, "known": 0}))
            store = methodcaller("store_events", events, idempotency_key=key)
            if repeated:
                assert script.run(store, asynchronous).stored == 1
                assert script.requests[0].content == script.requests[1].content
            else:
                with pytest.raises(ServiceError):
                    script.run(store, asynchronous)
            assert len(script.requests) == 1 + repeated


@BOTH
def test_health_of_a_service_that_is_not_ready_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    state = {"status": "degraded", "database": "unreachable", "adapters": 1, "fusion": False}
    script = Script(monkeypatch, httpx2.Response(503, json=state))
    assert script.run(lambda client: client.health(), asynchronous) == answers.Health(**state)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx2.Response(200, text="<html>"), "not an answer of lorarec"),
        (httpx2.Response(200, json=[1]), "not an answer of lorarec"),
        (httpx2.Response(200, json={"names": []}), "not an answer of lorarec"),
        (httpx2.Response(200), "not an answer of lorarec"),
        (httpx2.Response(301, headers={"location": "/login"}), "answered 301: Moved Permanently"),
        (httpx2.Response(502, text="bad\ngateway"), "answered 502: bad gateway"),
        (httpx2.Response(404, json={"error": 1}), "answered 404"),
        (httpx2.DecodingError("no gzip"), r"an answer that cannot be decoded \(no gzip\): check base_url"),
        (httpx2.ReadTimeout("slow"), "did not answer within 60 seconds: raise timeout"),
        (httpx2.ReadError("reset"), r"broke before the answer \(reset\): it may have carried out the request or not"),
        (httpx2.RemoteProtocolError(""), r"broke before the answer \(RemoteProtocolError\)"),
        (httpx2.ConnectError("refused"), r"cannot be reached \(refused\): start it, or correct base_url"),
    ],
)
def test_what_is_no_answer_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, response: Any, message: str
) -> None:
    with pytest.raises(ServiceError, match=message) as refused:
        Script(monkeypatch, response).run(lambda client: client.users(), False, retries=0)
    assert "\n" not in str(refused.value)
    assert refused.value.request_id


def test_times_to_wait() -> None:
    def asked(value: str) -> float | None:
        return client_calls.retry_after(httpx2.Response(503, headers={"retry-after": value}))

    assert asked("12") == 12
    assert asked("-1") is asked("soon") is asked("1.5") is asked("") is None
    assert asked("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    soon = asked(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert soon is not None
    assert 80 < soon <= 90
    waits = [client_calls.wait_seconds(attempt) for attempt in range(1, 12)]
    for attempt, wait in enumerate(waits):
        assert 0.5 * min(30, 0.5 * 2**attempt) <= wait <= min(30, 0.5 * 2**attempt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "must begin with http:// or https://, got 'localhost:8000'"),
        *(
            ({"base_url": url}, "base_url")
            for url in ("http://", "http://[::1", "http://a:b", "http://a/?b=1", "http:///v1")
        ),
        *(({"timeout": value}, "timeout must be a positive number") for value in (0, -1, math.nan, math.inf, None)),
        *(({"retries": value}, "retries must be an integer that is not negative") for value in (-1, 1.5, None)),
        (
            {"api_key": "top\nsecret"},
            "^api_key has a line break or another control character inside: give the key alone$",
        ),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(LorarecError, match=message):
            client(**options)
    with Client("http://service") as client_, pytest.raises(LorarecError, match="the request is not JSON"):
        client_.rank([{"title": math.nan}], user_id="u")  # type: ignore[dict-item]


def test_what_is_not_given_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"ranking": [], "fusion": False, "mixture": {}, "personal": {}, "tokens": 0}
    script = Script(monkeypatch, httpx2.Response(200, json=empty))
    script.run(lambda client: client.rank(("i1",), history=()), False)
    assert json.loads(script.requests[0].content) == {"candidates": ["i1"], "history": []}


def test_a_key_is_sent_without_white_space_around_it_in_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (" schlüssel\n", "schlüssel"):
        script = Script(monkeypatch, USERS)
        script.run(lambda client: client.users(), False, api_key=key)
        (header,) = [value for name, value in script.requests[0].headers.raw if name.lower() == b"authorization"]
        assert header == "Bearer schlüssel".encode()


@pytest.mark.parametrize("user", [".", "..", "...", "a/../b", "/", "%2E", "é ", "a?b#c"])
def test_ids_reach_the_service_as_they_are(service: Service, served: Any, user: str) -> None:
    with served(service) as url, Client(url) as client:
        client.store_events([{"user_id": user, "item_id": "x01", "event_id": "a"}])
        assert client.stored_user(user).user_id == user
        assert client.delete_user(user) == 1


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    with Client("http://127.0.0.1:9", retries=0) as client:
        for call in (client.stored_user, client.delete_user, client.item, client.adapter, client.delete_alias):
            with pytest.raises(LorarecError, match="cannot be an id"):
                call("a\ud800")
        for find in (client.history, client.items, client.users):
            with pytest.raises(LorarecError, match="cannot be sent"):
                find("a\ud800")
        for key in ("é", "a\nb", "\ud800"):
            with pytest.raises(LorarecError, match="idempotency_key must be printable ASCII"):
                client.store_events(EVENTS, idempotency_key=key)


def test_an_answer_of_another_form_inside_a_batch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for body in (
        {},
        {"ranking": 1},
        {"ranking": [], "fusion": False, "mixture": [1], "personal": {}, "tokens": 0},
        None,
    ):
        answer = httpx2.Response(200, json={"responses": [{"status": 200, "body": body, "retry_after": None}]})
        script = Script(monkeypatch, answer)
        with pytest.raises(ServiceError, match="not an answer of lorarec"):
            script.run(lambda client: client.rank_many([{"candidates": ["a"], "history": []}]), False)

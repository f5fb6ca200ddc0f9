"""Problem details of every error, ids of requests, and what the OpenAPI description says of them."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from lorarec.serving import adapter_schemas, batch, item_schemas, rerank, response_schemas, schemas, user_schemas
from lorarec.serving.error_handlers import validation_faults
from lorarec.serving.errors import MAX_FAULTS
from lorarec.serving.response_schemas import ProblemDetails
from lorarec.serving.service import Service

GOOD = {"history": ["x01"], "candidates": ["x02", "x03"], "adapter": "general"}
JSON = {"content-type": "application/json"}


def check_problem(answer: httpx2.Response, status: int) -> ProblemDetails:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = ProblemDetails.model_validate_json(answer.content, strict=True)
    assert (problem.status, problem.type) == (status, "about:blank")
    assert problem.request_id == answer.headers["x-request-id"]
    assert problem.detail
    assert "\n" not in problem.detail
    return problem


def test_every_error_is_a_problem(service: Service, play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        check_problem(await client.get("/v1/nothing"), 404)
        check_problem(await client.get("/v1/history?user_id=nobody"), 404)
        check_problem(await client.get("/v1/items?limit=0"), 422)
        check_problem(await client.get("/v1/adapters", headers={"host": "evil.example"}), 421)
        check_problem(await client.get("/v1/adapters", headers={"origin": "https://evil.example"}), 403)
        check_problem(await client.post("/livez"), 405)
        check_problem(await client.post("/v1/rank", json={}), 422)
        check_problem(await client.post("/v1/rank", content=b"{", headers=JSON), 400)
        check_problem(await client.post("/v1/rank", content=b'{"top": ' + b"1" * 5000 + b"}", headers=JSON), 400)
        check_problem(await client.post("/v1/rank", content=b" " * (1 << 21), headers=JSON), 413)

        async def broken(*_: Any) -> None:
            raise RuntimeError("a secret")

        monkeypatch.setattr(service, "rank", broken)
        transport = httpx2.ASGITransport(client._transport.app, raise_app_exceptions=False)  # type: ignore[attr-defined]
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as other:
            problem = check_problem(await other.post("/v1/rank", json=GOOD, headers={"x-request-id": "mine"}), 500)
        assert problem.request_id == "mine"
        assert "secret" not in problem.detail

    play(service, scenario)


def test_a_wrong_key_is_a_problem(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.get("/v1/adapters", headers={"x-request-id": "mine"})
        assert check_problem(answer, 401).request_id == "mine"

    play(service, scenario, "secret")


def test_other_methods_are_told_which_there_are(service: Service, play: Any) -> None:
    allowed = {"/v1/rank": "POST", "/v1/adapters": "GET, HEAD, POST", "/v1/adapters/general": "DELETE, GET, HEAD"}

    async def scenario(client: httpx2.AsyncClient) -> None:
        for path, methods in allowed.items():
            answer = await client.put(path)
            check_problem(answer, 405)
            assert answer.headers["allow"] == methods
            assert methods in answer.json()["detail"]

    play(service, scenario)


def test_every_fault_is_named_at_once(service: Service, play: Any) -> None:
    async def faults(client: httpx2.AsyncClient, path: str, body: Any, status: int = 422) -> list[str]:
        problem = check_problem(await client.post(path, json=body), status)
        if len(problem.errors) > 1:
            assert f"(and {len(problem.errors) - 1} more: see errors)" in problem.detail
        return [each.field for each in problem.errors]

    async def scenario(client: httpx2.AsyncClient) -> None:
        ranked = {"history": ["x01", "no"], "candidates": ["a", "x02", {"title": "new"}, "b"], "adapter": "none"}
        assert await faults(client, "/v1/rank", ranked) == ["candidates.0", "candidates.3", "history.1", "adapter"]
        stored = {"user_id": "nobody", "candidates": ["a"], "adapter": "general"}
        assert await faults(client, "/v1/rank", stored) == ["candidates.0", "user_id"]
        assert await faults(client, "/v1/rank", stored | {"candidates": ["x01"], "adapter": "none"}, 404) == [
            "user_id",
            "adapter",
        ]
        typed = {"history": 3, "candidates": [], "adapter": {"general": 2}, "path": 1}
        found = set(await faults(client, "/v1/rank", typed))
        assert found == {"history", "candidates", "adapter.general", "path"}
        condition = {"column": "no", "op": "=", "value": 1}
        rules = {"where": [condition], "boost": [{"where": condition, "add": 1}], "at_most": {"no": 1}}
        assert await faults(client, "/v1/recommend", {"history": ["no"], "adapter": "general"} | rules) == [
            "history.0",
            "where.0",
            "boost.0.where",
            "at_most",
        ]
        event = {"user_id": "a", "item_id": "no"}
        assert await faults(client, "/v1/events", {"events": [event, event]}) == [
            "events.0.item_id",
            "events.1.item_id",
        ]
        explained = {"history": ["no"], "item_id": "none", "adapter": "general"}
        assert await faults(client, "/v1/explain", explained) == ["item_id", "history.0"]
        reranked = {"query": "a", "documents": [1, {"text": ""}], "top_n": -1}
        assert await faults(client, "/v1/rerank", reranked) == ["documents.0", "documents.1.text", "top_n"]
        answer = await client.post("/v1/rank", json={"history": [], "candidates": ["no"] * 1000, "adapter": "general"})
        problem = check_problem(answer, 422)
        assert len(problem.errors) == MAX_FAULTS
        assert "(and 999 more" in problem.detail

    play(service, scenario)


def test_of_alternatives_the_one_that_was_meant_is_named() -> None:
    def fields(body: Any) -> list[str | None]:
        try:
            schemas.RankRequest.model_validate(body)
        except ValueError as error:
            found = [each | {"loc": ("body", *each["loc"])} for each in error.errors()]  # type: ignore[attr-defined]
            return [fault.field for fault in validation_faults(found)]
        return []

    body = {"history": [{"title": ""}, 3, {"name": "a"}], "candidates": ["x01"]}
    assert fields(body) == ["history.0.title", "history.1", "history.2.title", "history.2.name"]
    assert fields({"candidates": ["x01"]}) == [None]
    history = [{"item_id": 3}, {"item_id": "x01", "title": "a"}, {"title": "a", "timestamp": "1"}, {"timestamp": 2**63}]
    expected = ["history.0.item_id", "history.1.title", "history.2.timestamp", "history.3.title", "history.3.timestamp"]
    assert fields({"history": history, "candidates": ["x01"]}) == expected


@pytest.mark.parametrize("moment", [1764115200000, -3_000_000_000])
def test_a_timestamp_in_another_unit_than_seconds_is_refused(moment: int, play_shared: Any) -> None:
    history = {"history": [{"item_id": "x02", "timestamp": moment}]}
    event = {"user_id": "dated", "item_id": "x01", "timestamp": moment}

    async def scenario(client: httpx2.AsyncClient) -> None:
        problem = check_problem(await client.post("/v1/rank", json=GOOD | history), 422)
        assert [each.field for each in problem.errors] == ["history.0.timestamp"]
        problem = check_problem(await client.post("/v1/events", json={"events": [event]}), 422)
        assert [each.field for each in problem.errors] == ["events.0.timestamp"]
        assert (await client.get("/v1/history", params={"user_id": "dated"})).status_code == 404

    play_shared(scenario)


def test_items_of_a_history_without_a_timestamp_beside_others_are_named(service: Service, play: Any) -> None:
    dated = {"item_id": "x01", "timestamp": 5}
    history = ["x02", dated, {"item_id": "x03"}, {"title": "a"}, {"title": "b", "timestamp": 1}]

    async def scenario(client: httpx2.AsyncClient) -> None:
        problem = check_problem(await client.post("/v1/rank", json=GOOD | {"history": history}), 422)
        assert [each.field for each in problem.errors] == ["history.0", "history.2", "history.3"]
        unknown = [dated, {"item_id": "no", "timestamp": 6}]
        problem = check_problem(await client.post("/v1/rank", json=GOOD | {"history": unknown}), 422)
        assert [each.field for each in problem.errors] == ["history.1"]
        plain = [{"item_id": "x02"}, {"title": "a"}]  # without timestamps, as ids and titles
        answers = [
            await client.post("/v1/rank", json=GOOD | {"history": each}) for each in (plain, ["x02", {"title": "a"}])
        ]
        assert answers[0].json() == answers[1].json()
        assert answers[0].status_code == 200

    play(service, scenario)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        *((good, 200) for good in ("application/json", "Application/JSON ; charset=utf-8", "application/vnd.me+json")),
        *((bad, 415) for bad in ("text/plain", "text/json", "multipart/form-data; boundary=a", "json", "", "a/b/c, *")),
        ("application/x-www-form-urlencoded", 415),
    ],
)
def test_media_types(play_shared: Any, media_type: str, status: int) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        headers = {"content-type": media_type}
        answer = await client.post("/v1/rank", content=json.dumps(GOOD), headers=headers)
        assert answer.status_code == status
        if status == 415:
            check_problem(answer, 415)
            assert answer.headers["accept"] == "application/json"

    play_shared(scenario)


def test_a_body_without_a_media_type(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        paths = ("rank", "recommend", "explain", "events", "adapters", "batch", "aliases", "items", "rerank")
        for path in (*(f"/v1/{each}" for each in paths), "/rerank"):
            request = client.build_request("POST", path, content=b"{}")
            assert "content-type" not in request.headers
            check_problem(await client.send(request), 415)

    play(service, scenario)


@pytest.mark.parametrize("given", ["a", "checkout-7f3a", "A.b_c:d=e+f/g", "0" * 128])
def test_well_formed_ids_are_returned(play_shared: Any, given: str) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for path in ("/v1/users", "/livez", "/", "/nothing"):
            answer = await client.get(path, headers={"X-Request-ID": given})
            assert answer.headers.get_list("x-request-id") == [given]

    play_shared(scenario)


@pytest.mark.parametrize("given", ["", " ", "-a", "a b", 'a"', "é", "a\tb", "0" * 129, "a;b", "{}", "%0a", "a,b"])
def test_other_ids_are_replaced(play_shared: Any, given: str) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.get("/livez", headers={"X-Request-ID": given.encode()})
        (found,) = answer.headers.get_list("x-request-id")
        assert re.fullmatch("[0-9a-f]{32}", found)

    play_shared(scenario)


def test_ids_differ(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        twice = [("X-Request-ID", "a"), ("X-Request-ID", "b")]
        found = [
            (await client.get("/livez", headers=headers)).headers["x-request-id"] for headers in (None, None, twice)
        ]
        assert len({*found, "a", "b", "a, b"}) == 6
        answer = await client.post("/v1/rerank", json={"model": "general", "query": "a", "documents": ["b"]})
        assert answer.json()["id"] == answer.headers["x-request-id"]

    play(service, scenario)


def test_head_answers_as_get_does(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        described = (await client.get("/openapi.json")).json()["paths"]
        paths = [
            path.replace("{name}", "general").replace("{user_id}", "u01").replace("{item_id}", "x01")
            for path, operations in described.items()
            if "get" in operations
        ]
        assert len(paths) == 11
        for path in (*paths, "/", "/page.js", "/openapi.json", "/v1/adapters/nothing"):
            query = {"user_id": "u01"} if path == "/v1/history" else {}
            got, headed = await client.get(path, params=query), await client.head(path, params=query)
            assert headed.status_code == got.status_code
            assert headed.headers["content-type"] == got.headers["content-type"]
            assert got.status_code == (404 if path.endswith("nothing") else 200)

    play(service, scenario)


def _schemas() -> dict[str, Any]:
    modules = (schemas, response_schemas, adapter_schemas, item_schemas, user_schemas, rerank, batch)
    return {name: each for module in modules for name, each in vars(module).items()}


@pytest.mark.parametrize("key", [None, "secret"])
def test_every_call_is_described(service: Service, play: Callable[..., Any], key: str | None) -> None:
    async def scenario(client: httpx2.AsyncClient) -> Any:
        return (await client.get("/openapi.json", headers={"authorization": "Bearer secret"})).json()

    described = play(service, scenario, key)
    assert described["info"]["version"]
    models = _schemas()

    def check_examples(schema: dict[str, Any]) -> None:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            examples = described["components"]["schemas"][name].get("examples")
            assert examples, name
            for example in examples:
                models[name].model_validate(example)
        elif schema.get("type") == "array":
            check_examples(schema["items"])
        elif alternatives := schema.get("oneOf", schema.get("anyOf")):
            for alternative in alternatives:
                check_examples(alternative)
        else:
            assert schema == {"type": "string"}

    public = ("/livez", "/readyz", "/healthz")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"]
            assert operation["description"].endswith("."), (method, path)
            for parameter in operation["parameters"]:
                assert parameter["description"]
                schema = parameter["schema"]
                assert {"example", "examples"} & {*parameter, *schema} or "default" in schema, (path, parameter)
            if "requestBody" in operation:
                (content,) = operation["requestBody"]["content"].values()
                check_examples(content["schema"])
                assert "415" in operation["responses"]
            assert ("security" in operation) == (key is not None and path not in public)
            for status, response in operation["responses"].items():
                assert response["description"]
                assert "X-Request-ID" in response["headers"]
                if status == "204":
                    continue
                ((media_type, content),) = response["content"].items()
                check_examples(content["schema"])
                problem = content["schema"].get("$ref", "").endswith("/ProblemDetails")
                assert problem == (int(status) >= 400 and not (path in public and status == "503"))
                assert (media_type == "application/problem+json") == problem
            if path not in public:
                assert {"400", "401", "403", "408", "413"} <= set(operation["responses"])

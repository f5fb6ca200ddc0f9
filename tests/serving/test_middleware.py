"""The checks of bodies, methods and origins, and that their time is linear in the size of the body."""

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.serving.app import create_app
from lorarec.serving.errors import ApiError
from lorarec.serving.middleware import MAX_BODY, MAX_DEPTH, MAX_MEMBERS, MAX_VALUES, PUBLIC_PATHS, check_json
from lorarec.serving.schemas import RankRequest, RecommendRequest
from lorarec.serving.service import Service
from lorarec.serving.user_schemas import EventsRequest

VALUES = st.recursive(
    st.none() | st.integers() | st.text(alphabet='"\\[]{},:a\x01é\u2028', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[{', max_size=4), inner, max_size=3),
    max_leaves=40,
)


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


def refused(body: bytes) -> str | None:
    try:
        check_json(body)
    except ApiError as problem:
        return problem.message
    return None


@given(VALUES, st.integers(0, MAX_DEPTH + 2), st.booleans())
def test_depth_is_counted_outside_of_strings(value: Any, around: int, escaped: bool) -> None:
    for _ in range(around):
        value = [value]
    message = refused(json.dumps(value, ensure_ascii=escaped).encode())
    assert (message is not None and "nested deeper" in message) == (depth(value) > MAX_DEPTH)


def test_the_largest_requests_pass() -> None:
    text = "\"\\'" * 10
    titles = [{"title": text}] * 1000
    RankRequest.model_validate(ranked := {"history": titles, "candidates": titles, "adapter": "a"})
    listed = [text] * 10_000
    RecommendRequest.model_validate(wanted := {"history": titles, "allow": listed, "deny": listed, "adapter": {"a": 1}})
    event = {"user_id": "u", "item_id": text, "timestamp": 1, "event_id": "e"}
    EventsRequest.model_validate(stored := {"events": [event] * 1000})
    for request in (ranked, wanted, stored):
        assert refused(json.dumps(request).encode()) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" + b"1," * (MAX_VALUES + 1), "values"),
        (b'{"a":1,' * (MAX_MEMBERS + 1), "members"),
        (b"[]" * (MAX_VALUES + 1), "values"),
        (b'""' * (2 * MAX_VALUES), "values"),
        (b"[" * (MAX_DEPTH + 1), "nested deeper"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-8"),
    ],
)
def test_expensive_bodies_are_refused(body: bytes, message: str) -> None:
    assert message in str(refused(body))


#: Bodies of about a size that a parser or a check may take long for.
HOSTILE: dict[str, Callable[[int], bytes]] = {
    "escaped quotes in an unclosed string": lambda n: b'"' + b'\\"' * (n // 2),
    "backslashes in an unclosed string": lambda n: b'"' + b"\\" * (n - 1),
    "an odd number of backslashes": lambda n: b'["' + b"\\\\" * (n // 2 - 2) + b'\\"',
    "quotes": lambda n: b'"' * n,
    "an unclosed string": lambda n: b'{"history": ["' + b"a" * n,
    "opening brackets": lambda n: b"[" * n,
    "objects in objects": lambda n: b'{"a":' * (n // 5),
    "brackets in pairs": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "brackets in a string": lambda n: b'"' + b"[{" * (n // 2) + b'"',
    "commas": lambda n: b"[" + b"," * n,
    "keys": lambda n: b"{" + b",".join(b'"k%d":1' % k for k in range(n // 12)) + b"}",
    "the same key": lambda n: b"{" + b",".join([b'"a":1'] * (n // 6)) + b"}",
    "a long key": lambda n: b'{"' + b"a" * n + b'": 1}',
    "unknown fields": lambda n: b'{"candidates":[{' + b",".join(b'"k%d":1' % k for k in range(n // 12)) + b"}]}",
    "wrong items": lambda n: b'{"history":[],"candidates":[' + b",".join([b"1"] * (n // 2)) + b"]}",
    "wrong weights": lambda n: b'{"adapter":{' + b",".join(b'"k%d":"x"' % k for k in range(n // 14)) + b"}}",
    "a long integer": lambda n: b'{"top": ' + b"1" * n + b"}",
    "a long fraction": lambda n: b'{"top": 0.' + b"1" * n + b"}",
    "a long exponent": lambda n: b'{"top": 1e' + b"9" * n + b"}",
    "large exponents": lambda n: b'{"history":[' + b",".join([b"1e999999999"] * (n // 12)) + b"]}",
    "a number in a string": lambda n: b'{"events":[{"user_id":"u","item_id":"i","timestamp":"' + b"1" * n + b'"}]}',
    "white space": lambda n: b" " * n,
    "white space before the end": lambda n: b'{"history": []' + b"\n" * n + b"}",
    "halves of surrogate pairs": lambda n: b'{"history": ["' + b"\\ud800" * (n // 6) + b'"]}',
    "escapes": lambda n: b'["' + b"\\u0041" * (n // 6) + b'"]',
    "invalid UTF-8 at the end": lambda n: b'"' + b"a" * n + b'\xff"',
    "bytes of no character": lambda n: b"\x80" * n,
    "NUL": lambda n: b'"' + b"a\0" * (n // 2) + b'"',
    "strings": lambda n: b"[" + b'"a",' * (n // 4) + b'"a"]',
    "NaN": lambda n: b"[" + b"NaN," * (n // 4) + b"NaN]",
}
SIZES = (1 << 10, 1 << 16, MAX_BODY)


def body_of(kind: str, size: int) -> bytes:
    return HOSTILE[kind](size)[:size]


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_time_of_the_check_is_linear(kind: str) -> None:
    """In this thread's own time, so that a crowded machine changes nothing; the smallest of a few."""

    def seconds(size: int) -> float:
        body, found = body_of(kind, size), []
        for _ in range(3):
            began = time.thread_time()
            refused(body)
            found.append(time.thread_time() - began)
        return min(found)

    small, middle, large = map(seconds, SIZES)
    assert middle < 64 * max(small, 1e-4) * 3
    assert large < 16 * max(middle, 5e-4) * 3
    assert large < 0.1


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bodies_are_refused_in_little_time(service_app: Any, kind: str) -> None:
    """By the whole application: the check, the parser and the validation, whose time is the event loop's."""
    run = service_app
    for path in ("/v1/rank", "/v1/recommend", "/v1/events"):
        for size in SIZES:
            status, seconds, content = run(path, body_of(kind, size))
            assert 400 <= status < 500
            assert len(content) < 2000
            assert seconds < 0.1, (kind, path, size)


@pytest.fixture(scope="module")
def service_app(make_page_service: Callable[..., Service]) -> Any:
    """Post a body to an application without a socket; gives status, seconds of this thread and content."""
    import asyncio

    app = create_app(make_page_service())
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")

    async def post(path: str, body: bytes) -> tuple[int, float, bytes]:
        began = time.thread_time()
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        return answer.status_code, time.thread_time() - began, answer.content

    gc.collect()
    gc.freeze()  # as the service does: a collection of all that the tests have loaded takes half a second
    with asyncio.Runner() as runner:
        yield lambda path, body: runner.run(post(path, body))
    gc.unfreeze()


@pytest.mark.parametrize("key", [None, "secret"])
def test_open_paths_take_no_body(service: Service, play: Any, key: str | None) -> None:
    async def unread() -> Any:
        raise AssertionError("the body is read")
        yield b""

    async def scenario(client: httpx2.AsyncClient) -> None:
        for path in PUBLIC_PATHS:
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "MADEUP"):
                answer = await client.request(method, path, content=unread())
                assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
            assert (await client.request("GET", path, content=unread())).status_code == 200
            assert (await client.head(path)).status_code == 200

    play(service, scenario, key)


FOREIGN = (
    {"origin": "http://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "null"},
    {"origin": "http://localhost.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
)


def test_pages_of_other_origins_are_refused_unread(service: Service, play: Any) -> None:
    async def unread() -> Any:
        raise AssertionError("the body is read")
        yield b""

    async def scenario(client: httpx2.AsyncClient) -> None:
        for headers in FOREIGN:
            for path in ("/v1/rank", "/v1/events", "/v1/adapters"):
                answer = await client.post(path, content=unread(), headers={**headers, "content-type": "text/plain"})
                assert answer.status_code == 403
                assert "LORAREC_API_KEY" in answer.json()["detail"]
            assert (await client.get("/v1/items", headers=headers)).status_code == 403
            assert (await client.get("/", headers=headers)).status_code == 200  # by a link

    play(service, scenario)


def test_the_page_and_programs_are_answered(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        own = {"origin": "http://localhost:8000", "host": "localhost:8000", "sec-fetch-site": "same-origin"}
        for headers in (own, {"host": "127.0.0.1:80"}, {"sec-fetch-site": "none"}):
            assert (await client.get("/v1/items", headers=headers)).status_code == 200

    play(service, scenario)


def test_with_a_key_any_origin_that_has_it_is_answered(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        headers = {"origin": "https://shop.example", "authorization": "Bearer secret", "host": "api.example"}
        assert (await client.get("/v1/items", headers=headers)).status_code == 200

    play(service, scenario, "secret")


def test_made_up_methods_are_no_labels(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        for number in range(30):
            for path in ("/", "/v1/rank", "/v1/adapters/general", f"/made-up-{number}"):
                await client.request(f"MADEUP{number}", path)
        metrics = (await client.get("/metrics")).text
        assert "MADEUP" not in metrics
        assert 'method="other",path="/v1/rank",status="405"} 30.0' in metrics

    play(service, scenario)


def test_a_long_name_of_a_field_is_not_repeated(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        answer = await client.post("/v1/rank", json={"a" * 100_000: 1})
        assert answer.status_code == 422
        assert len(answer.content) < 1000

    play(service, scenario)

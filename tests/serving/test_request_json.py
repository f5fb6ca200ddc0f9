"""JSON of requests that parsers read differently."""

import gzip
import json
from typing import Any

import httpx2
import pytest

from lorarec.serving.errors import ApiError
from lorarec.serving.request_json import MAX_DIGITS, parse_json
from lorarec.serving.service import Service

GOOD = {"history": ["x01"], "candidates": ["x02"], "adapter": "general"}
LONG = '{"N": 1, "N": 2}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "two members with the name 'a' in one object: give each name once"),
        ('[{"a": [{"b": 1, "\\u0062": 2}]}]', "two members with the name 'b'"),
        (LONG.replace("N", "n" * 200), "'" + "n" * 100 + "' in"),
        *((f'{{"a": [{name}]}}', f"it has {name}, which is no number") for name in ("NaN", "Infinity", "-Infinity")),
        ('{"a": 1' + "1" * MAX_DIGITS + "}", f"a number of {MAX_DIGITS + 1} digits"),
    ],
)
def test_ambiguous_json_is_refused(play_shared: Any, body: str, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        parse_json(body.encode())

    async def scenario(client: httpx2.AsyncClient) -> None:
        for path in ("/v1/rank", "/v1/batch", "/v1/events"):
            answer = await client.post(path, content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 400
            assert answer.headers["content-type"] == "application/problem+json"
            assert message in answer.json()["detail"]

    play_shared(scenario)


@pytest.mark.parametrize(
    "text",
    ["[]", '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}', "-0.0", "1e400", "1" * MAX_DIGITS, '"\\ud800"', "null "],
)
def test_other_json_is_read_as_by_the_standard_library(text: str) -> None:
    assert parse_json(text.encode()) == json.loads(text)
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


@pytest.mark.parametrize("key", [None, "secret"])
def test_compressed_bodies_are_refused_by_their_header(service: Service, play: Any, key: str | None) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        headers = {"content-type": "application/json", "authorization": "Bearer secret"}
        text = json.dumps(GOOD).encode()
        for coding in ("gzip", "deflate", "br", "zstd", "gzip, identity", "made-up"):
            for body in (gzip.compress(text), text):
                answer = await client.post("/v1/rank", content=body, headers=headers | {"content-encoding": coding})
                assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
                assert "send it uncompressed" in answer.json()["detail"]
        plain = await client.post("/v1/rank", content=text, headers=headers | {"content-encoding": "Identity"})
        assert plain.status_code == 200

    play(service, scenario, key)

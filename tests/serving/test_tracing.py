"""Traces of requests: one span each with its stages, without anything that identifies users."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import opentelemetry.trace
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from lorarec.errors import LorarecError
from lorarec.serving import logs, tracing
from lorarec.serving.service import Service
from lorarec.serving.tracing import VARIABLES, RequestTracer, configure_tracing

STORED = {"user_id": "u01", "candidates": ["x02", {"title": "made up"}], "adapter": "general"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def no_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "tracer", None)
    for name in (*VARIABLES, "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Spans of requests, and of anything else that uses OpenTelemetry's global provider."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    configure_tracing()
    return exporter


def test_a_request_is_a_span_with_its_stages(service: Service, play: Any, exporter: InMemorySpanExporter) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/rank", json=STORED, headers={"traceparent": PARENT})).status_code == 200

    play(service, scenario)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert list(spans) == ["database", "prompt", "queue", "model", "POST /v1/rank"]
    request = spans.pop("POST /v1/rank")
    assert request.kind == SpanKind.SERVER
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/rank",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    assert request.context is not None
    assert request.parent is not None
    assert f"00-{request.context.trace_id:032x}-{request.parent.span_id:016x}-01" == PARENT
    ended = request.start_time or 0
    for span in spans.values():  # one after the other, within the request
        assert span.parent == request.context
        assert span.attributes == {}
        assert span.start_time is not None
        assert span.end_time is not None
        assert ended <= span.start_time + 1000
        ended = span.end_time
    assert ended <= (request.end_time or 0)


def test_spans_say_what_the_metrics_and_the_log_say(
    service: Service, play: Any, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(logs.requests, "isEnabledFor", lambda _: True)
    monkeypatch.setattr(logs.requests, "info", lines.append)

    async def scenario(client: httpx2.AsyncClient) -> None:
        await client.post("/v1/rank", json=STORED)

    play(service, scenario)
    (line,) = map(json.loads, lines)
    spans = exporter.get_finished_spans()
    for span in spans[:-1]:
        seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        assert seconds == pytest.approx(line[f"{span.name}_seconds"], abs=2e-6)
    assert spans[-1].context is not None
    assert line["trace_id"] == f"{spans[-1].context.trace_id:032x}"


def test_nothing_identifies_users_and_attributes_have_few_values(
    service: Service, play: Any, exporter: InMemorySpanExporter
) -> None:
    """Whatever clients send; FastAPI's own traces, which have query strings, are off."""

    async def scenario(client: httpx2.AsyncClient) -> None:
        key = {"authorization": "Bearer secret-key"}
        for number in range(3):
            user = f"user-{number}"
            for path in (
                f"/v1/history?user_id={user}",
                f"/v1/users/{user}",
                f"/made-up/{user}",
                f"/v1/items?query={user}",
            ):
                await client.get(path, headers=key | {"host": f"{user}.example", "user-agent": user})
            await client.request(f"USER{number}", "/v1/rank", headers=key)
            await client.get("/v1/items", headers={"authorization": f"Bearer {user}", "x-request-id": user})

    play(service, scenario, "secret-key")
    spans = exporter.get_finished_spans()
    assert len([span for span in spans if span.kind == SpanKind.SERVER]) == 18
    text = "".join(span.to_json() for span in spans)
    assert not any(word in text.lower() for word in ("user-", "user0", "secret", "made-up"))
    names = {span.name for span in spans}
    routes = {"GET /v1/history", "GET /v1/users/{user_id:path}", "GET /v1/items", "HTTP /v1/rank"}
    assert names == {"GET", "database", *routes}


def test_failures_are_errors(service: Service, play: Any, exporter: InMemorySpanExporter) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("u01")

    service.find_items = fail  # type: ignore[assignment, method-assign]

    async def scenario(client: httpx2.AsyncClient) -> None:
        with pytest.raises(RuntimeError):
            await client.get("/v1/items")
        assert (await client.get("/v1/adapters/none")).status_code == 404

    play(service, scenario)
    failed, missing = exporter.get_finished_spans()
    assert (failed.status.status_code, (failed.attributes or {})["error.type"]) == (StatusCode.ERROR, "500")
    assert missing.status.status_code == StatusCode.UNSET
    assert "u01" not in failed.to_json()


def test_requests_that_are_not_sampled_have_no_spans(
    service: Service, play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "tracer", RequestTracer(provider))

    async def scenario(client: httpx2.AsyncClient) -> None:
        for parent in (PARENT, "", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"):
            assert (await client.get("/livez", headers={"traceparent": parent})).status_code == 200

    play(service, scenario)
    assert exporter.get_finished_spans() == ()


def test_traces_are_off_unless_the_environment_asks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure_tracing()
    assert tracing.tracer is None
    for name, value in (("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")):
        with monkeypatch.context() as changed:
            changed.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1")
            changed.setenv(name, value)
            configure_tracing()
        assert tracing.tracer is None
    assert caplog.messages == []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    configure_tracing()
    assert tracing.tracer is None
    assert caplog.messages == [
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need opentelemetry.sdk.resources: pip install 'lorarec[otel]'"
    ]


def test_unknown_exporters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,carrier-pigeon")
    with pytest.raises(LorarecError, match="no exporter 'carrier-pigeon' is installed: there are console"):
        configure_tracing()


def test_nothing_of_opentelemetry_is_loaded_without_need() -> None:
    code = (
        "import sys, lorarec.serving.tracing as tracing; tracing.configure_tracing(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    environment = {"PYTHONPATH": str(Path(tracing.__file__).parents[2]), "PATH": ""}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """URL of a collector of OpenTelemetry's protocol over HTTP, and what it received."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def test_spans_reach_a_collector_at_the_latest_on_sigterm(
    serve_options: list[str],
    tmp_path: Path,
    started: Any,
    collector: tuple[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with started([*serve_options, "--db", str(tmp_path / "h.db")]) as (server,):
        assert httpx2.post(f"{server.url}/v1/rank", json=STORED, timeout=60).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
    assert {path for path, _ in received} == {"/v1/traces"}
    groups = [group for _, request in received for group in request.resource_spans]
    resource = {each.key: each.value.string_value for each in groups[0].resource.attributes}
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("lorarec", "test")
    names = [span.name for group in groups for scope in group.scope_spans for span in scope.spans]
    assert {"POST /v1/rank", "model", "GET /livez"} <= set(names)


def test_a_collector_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Hanging:
        def flush(self) -> None:
            released.wait(20)

    monkeypatch.setattr(tracing, "tracer", Hanging())
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.1)

    async def end() -> None:
        await asyncio.wait_for(tracing.flush_traces(), 5)
        released.set()

    asyncio.run(end())

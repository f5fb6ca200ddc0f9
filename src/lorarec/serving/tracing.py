"""Traces of requests by OpenTelemetry, which is imported only where the environment asks for traces."""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from lorarec.errors import LorarecError
from lorarec.serving.metrics import Stage

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

#: Variables of OpenTelemetry of which one must be set for traces.
VARIABLES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Seconds for the last spans at the end of the service.
FLUSH_SECONDS = 3.0
#: Exporters that the SDK names by their protocol.
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}

logger = logging.getLogger(__name__)


class RequestTracer:
    """Make a span of each request, with a span of each of its stages.

    The spans are made when the request has ended, from the same measurements as the metrics and the log. Attributes
    have few values: routes with names in place of what clients choose, and never ids of users, titles or keys.

    Args:
        provider: Provider of tracers of OpenTelemetry.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("lorarec.serving")

    def record(
        self, scope: Scope, method: str, path: str, status: int, times: tuple[float, float], stages: Sequence[Stage]
    ) -> str | None:
        """Record a request as a child of the span in its header `traceparent`, if it has one.

        Args:
            scope: ASGI scope of the request.
            method: HTTP method, or `other`.
            path: Path of the route, or `other`.
            status: HTTP status of the response.
            times: Begin and end of the request, in seconds of `time.perf_counter`.
            stages: Stages of the request.

        Returns:
            The id of the trace; None if it is not sampled.
        """
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        wall, clock = time.time_ns(), time.perf_counter()

        def nanoseconds(seconds: float) -> int:
            return wall - int((clock - seconds) * 1e9)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes: dict[str, Any] = {
            "http.request.method": "_OTHER" if method == "other" else method,
            "http.response.status_code": status,
            "url.scheme": scope.get("scheme", "http"),
        }
        if path != "other":
            attributes["http.route"] = path
        if status >= 500:
            attributes["error.type"] = str(status)
        span = self._tracer.start_span(
            " ".join(["HTTP" if method == "other" else method, *([] if path == "other" else [path])]),
            extract(headers),
            SpanKind.SERVER,
            attributes,
            start_time=nanoseconds(times[0]),
        )
        if span.is_recording():
            parent = set_span_in_context(span)
            for stage in stages:
                child = self._tracer.start_span(stage.name, parent, start_time=nanoseconds(stage.began))
                child.end(nanoseconds(stage.ended))
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(nanoseconds(times[1]))
        context = span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def flush(self) -> None:
        """Export the spans that wait."""
        flush = getattr(self._provider, "force_flush", None)  # a provider of the API alone has none
        if flush is not None:
            flush(int(FLUSH_SECONDS * 1000))


#: The tracer of this process; None if requests are not traced.
tracer: RequestTracer | None = None


def configure_tracing() -> None:
    """Trace requests if the variables of OpenTelemetry (`OTEL_...`) ask for it.

    A provider that this process has already, such as that of `opentelemetry-instrument`, is used as it is.

    Raises:
        LorarecError: If there is no exporter of a name in `OTEL_TRACES_EXPORTER`.
    """
    global tracer
    given = [name for name in VARIABLES if os.environ.get(name)]
    exporters = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if not given or exporters == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
    except ImportError as error:
        logger.warning("%s is set, but traces need %s: pip install 'lorarec[otel]'", given[0], error.name)
        return
    existing = get_tracer_provider()
    if not isinstance(existing, ProxyTracerProvider):
        tracer = RequestTracer(existing)
        return
    classes = [_exporter(name.strip()) for name in exporters.split(",")]
    resource = Resource.create()  # from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "lorarec"}))
    provider = TracerProvider(resource=resource)
    for each in classes:
        provider.add_span_processor(BatchSpanProcessor(each()))
    tracer = RequestTracer(provider)


def _exporter(name: str) -> Any:
    """Return the class of an exporter by its name in `OTEL_TRACES_EXPORTER`.

    Raises:
        LorarecError: If no such exporter is installed.
    """
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    wanted = _PROTOCOLS.get(protocol or "http/protobuf", str(protocol)) if name == "otlp" else name
    installed = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter")}
    if wanted not in installed:
        raise LorarecError(
            f"OTEL_TRACES_EXPORTER: no exporter {wanted!r} is installed: there are {', '.join(sorted(installed))}"
        )
    return installed[wanted].load()


async def flush_traces() -> None:
    """Export the spans that wait, within a few seconds."""
    if tracer is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await asyncio.to_thread(tracer.flush)

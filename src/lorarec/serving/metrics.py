"""Metrics of the service for Prometheus, and the durations of the stages of a request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)

_stages: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


@contextmanager
def recorded_stages() -> Iterator[dict[str, float]]:
    """Record the stages of the request that this task and those that it starts work for: seconds by stage."""
    stages: dict[str, float] = {}
    token = _stages.set(stages)
    try:
        yield stages
    finally:
        _stages.reset(token)


class Metrics:
    """Metrics of one service, in a registry of its own.

    Args:
        by_variant: Whether requests have a label for the variant of an experiment, empty for requests without one.

    Attributes:
        registry: Registry that `/metrics` exports.
        requests: Number of answered requests by method, path of the API, status and variant.
        seconds: Response time by path of the API and variant.
        stage_seconds: Duration of the stages of requests: `database`, `prompt`, `queue`, `model` and `fusion`.
        in_progress: Number of requests that are prepared, queued or scored.
        rejected: Number of requests that were refused because the queue was full.
        dropped: Number of requests whose client disconnected before the response was ready.
        batch_size: Number of requests in a pass of the model.
        batch_tokens: Number of tokens in a pass of the model, padding included.
        batch_seconds: Duration of a pass of the model.
        fused: Number of requests that the fusion answered.
        fusion_seconds: Duration of the fusion of one request in seconds, without the scores of its adapters.
        events: Number of stored interactions.
        adapters: Number of loaded adapters.
        unavailable: 1 for each adapter that is announced and not loaded in this replica, by name.
    """

    def __init__(self, by_variant: bool = False) -> None:
        self.registry = registry = CollectorRegistry()
        self._by_variant = by_variant
        more = ("variant",) if by_variant else ()
        self.requests = Counter(
            "lorarec_requests", "Answered requests", ("method", "path", "status", *more), registry=registry
        )
        self.seconds = Histogram(
            "lorarec_request_seconds", "Response time in seconds", ("path", *more), registry=registry
        )
        self.stage_seconds = Histogram(
            "lorarec_stage_seconds", "Duration of a stage of a request in seconds", ("stage",), registry=registry
        )
        self.in_progress = Gauge(
            "lorarec_requests_inside", "Requests that are prepared, queued or scored", registry=registry
        )
        self.rejected = Counter(
            "lorarec_rejected", "Requests that were refused because the queue was full", registry=registry
        )
        self.dropped = Counter(
            "lorarec_dropped", "Requests whose client disconnected before the response was ready", registry=registry
        )
        self.batch_size = Histogram(
            "lorarec_batch_size", "Requests in a pass of the model", buckets=BATCH_SIZES, registry=registry
        )
        self.batch_tokens = Histogram(
            "lorarec_batch_tokens", "Tokens in a pass, padding included", buckets=TOKENS, registry=registry
        )
        self.batch_seconds = Histogram("lorarec_batch_seconds", "Duration of a pass in seconds", registry=registry)
        self.fused = Counter("lorarec_fused", "Requests that the fusion answered", registry=registry)
        self.fusion_seconds = Histogram(
            "lorarec_fusion_seconds",
            "Duration of the fusion of a request in seconds, without the scores of its adapters",
            registry=registry,
        )
        self.events = Counter("lorarec_events", "Stored interactions", registry=registry)
        self.adapters = Gauge("lorarec_adapters", "Loaded adapters", registry=registry)
        self.unavailable = Gauge(
            "lorarec_adapter_unavailable",
            "1 for each adapter that is announced and not loaded in this replica",
            ("adapter",),
            registry=registry,
        )

    def add_response(self, method: str, path: str, status: int, seconds: float, variant: str | None) -> None:
        """Count a response and its duration."""
        more = (variant or "",) if self._by_variant else ()
        self.requests.labels(method, path, status, *more).inc()
        self.seconds.labels(path, *more).observe(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage of a request."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add_stage(name, time.perf_counter() - began)

    def add_stage(self, name: str, seconds: float) -> None:
        """Add the duration of a stage of a request."""
        self.stage_seconds.labels(name).observe(seconds)
        stages = _stages.get()
        if stages is not None:
            stages[name] = stages.get(name, 0.0) + seconds

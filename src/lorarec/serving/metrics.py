"""Metrics of the service for Prometheus, and the durations of the stages of a request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True)
class Stage:
    """A stage of a request.

    Attributes:
        name: `database`, `prompt`, `queue`, `model` or `fusion`.
        began: Time at which it began, in seconds of `time.perf_counter`.
        ended: Time at which it ended.
    """

    name: str
    began: float
    ended: float


_stages: ContextVar[list[Stage] | None] = ContextVar("stages", default=None)


@contextmanager
def recorded_stages() -> Iterator[list[Stage]]:
    """Record the stages of the request that this task and those that it starts work for."""
    stages: list[Stage] = []
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
        prompt_cache_hits: Number of prompts that were found in the cache of prompts.
        prompt_cache_misses: Number of prompts that were looked up in the cache and had to be read.
        prompt_cache_bytes: Size of the cached prompts in bytes.
        events: Number of stored interactions.
        adapters: Number of loaded adapters.
        logged_answers: Number of answers that were written to the answer log.
        shadow: Number of requests that shadow variants `scored`, `dropped` or `failed` to score, by variant and result.
        dropped_answers: Number of answers that were left out of the answer log because too many waited to be written.
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
        self.prompt_cache_hits = Counter(
            "lorarec_prompt_cache_hits", "Prompts that were found in the cache", registry=registry
        )
        self.prompt_cache_misses = Counter(
            "lorarec_prompt_cache_misses", "Prompts that were not in the cache and were read", registry=registry
        )
        self.prompt_cache_bytes = Gauge(
            "lorarec_prompt_cache_bytes", "Size of the cached prompts in bytes", registry=registry
        )
        self.events = Counter("lorarec_events", "Stored interactions", registry=registry)
        self.adapters = Gauge("lorarec_adapters", "Loaded adapters", registry=registry)
        self.unavailable = Gauge(
            "lorarec_adapter_unavailable",
            "1 for each adapter that is announced and not loaded in this replica",
            ("adapter",),
            registry=registry,
        )
        self.logged_answers = Counter(
            "lorarec_logged_answers", "Answers that were written to the answer log", registry=registry
        )
        self.shadow = Counter(
            "lorarec_shadow",
            "Requests that shadow variants scored, dropped because the model was busy, or failed to score",
            ("variant", "result"),
            registry=registry,
        )
        self.dropped_answers = Counter(
            "lorarec_dropped_answers",
            "Answers that were left out of the answer log because too many waited to be written",
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
            self.add_stage(name, began, time.perf_counter())

    def add_stage(self, name: str, began: float, ended: float) -> None:
        """Add a stage of a request, which began and ended at times of `time.perf_counter`."""
        self.stage_seconds.labels(name).observe(ended - began)
        stages = _stages.get()
        if stages is not None:
            stages.append(Stage(name, began, ended))

"""Metrics of the service for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Metrics of one service, in a registry of its own.

    Attributes:
        registry: Registry that `/metrics` exports.
        requests: Number of answered requests by method, path of the API and status.
        seconds: Response time by path of the API.
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
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "lorarec_requests", "Answered requests", ("method", "path", "status"), registry=registry
        )
        self.seconds = Histogram("lorarec_request_seconds", "Response time in seconds", ("path",), registry=registry)
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

"""What Prometheus reads."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Counters of one service, in a registry of its own.

    Attributes:
        requests: answered requests by method, path of the API and status.
        seconds: time to the answer, by path.
        inside: requests being prepared, waiting or scored.
        rejected: requests refused since too many were inside.
        dropped: requests whose client left before they were scored.
        batch_size: requests that shared a pass.
        batch_tokens: padded tokens of a pass.
        batch_seconds: time of a pass.
        events: interactions stored.
        adapters: adapters loaded.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "lorarec_requests", "Answered requests", ("method", "path", "status"), registry=registry
        )
        self.seconds = Histogram("lorarec_request_seconds", "Time to the answer", ("path",), registry=registry)
        self.inside = Gauge("lorarec_requests_inside", "Requests prepared, waiting or scored", registry=registry)
        self.rejected = Counter("lorarec_rejected", "Requests refused for a full queue", registry=registry)
        self.dropped = Counter("lorarec_dropped", "Requests whose client left before scoring", registry=registry)
        self.batch_size = Histogram(
            "lorarec_batch_size", "Requests that shared a pass", buckets=BATCH_SIZES, registry=registry
        )
        self.batch_tokens = Histogram(
            "lorarec_batch_tokens", "Padded tokens of a pass", buckets=TOKENS, registry=registry
        )
        self.batch_seconds = Histogram("lorarec_batch_seconds", "Time of a pass", registry=registry)
        self.events = Counter("lorarec_events", "Interactions stored", registry=registry)
        self.adapters = Gauge("lorarec_adapters", "Adapters loaded", registry=registry)

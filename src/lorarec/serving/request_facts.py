"""Facts about a request that its line in the log and its metrics have: its key, its variant, versions of adapters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

#: Variant of a batch of requests that were assigned to different ones.
SEVERAL = "several"


@dataclass
class RequestFacts:
    """What is known of a request once it is answered.

    Attributes:
        key_name: Name of the API key; None if the request has none that is valid.
        variant: Name of the variant that the request was assigned to, or None; `SEVERAL` for a batch of requests that
            were assigned to different ones.
        versions: Version of each adapter that answered, by name.
        trace_id: Id of the trace that has the request; None if it is not traced.
    """

    key_name: str | None = None
    variant: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    trace_id: str | None = None


_facts: ContextVar[RequestFacts | None] = ContextVar("facts", default=None)


@contextmanager
def recorded_facts() -> Iterator[RequestFacts]:
    """Record facts of the request that this task and those that it starts work for."""
    facts = RequestFacts()
    token = _facts.set(facts)
    try:
        yield facts
    finally:
        _facts.reset(token)


def record_key_name(name: str) -> None:
    """Record the name of the API key of the request."""
    if facts := _facts.get():
        facts.key_name = name


def record_versions(versions: Mapping[str, str]) -> None:
    """Record the versions of the adapters that answered."""
    if facts := _facts.get():
        facts.versions |= versions


def record_variant(name: str) -> None:
    """Record the variant that the request was assigned to."""
    if facts := _facts.get():
        facts.variant = name if facts.variant in (None, name) else SEVERAL

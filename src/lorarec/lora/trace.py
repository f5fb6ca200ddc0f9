"""What a chooser of weights saw on its way."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trace:
    """The way to the chosen weights.

    Attributes:
        steps: one entry per evaluated mixture, in order: its `weights` and the figures found there.
        stopped: why it ended.
        extra: whatever else is worth keeping.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

"""A cache of prompts that the model has read, so that a later ranking for a history reads only the candidates."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from lorarec.scoring import CachedPrompt
from lorarec.serving.metrics import Metrics

#: Seconds after which a prompt that was not used is removed. Requests that follow one another come sooner, and the
#: history of a deleted user must not stay in memory.
MAX_SECONDS = 600.0


class PromptCache:
    """Keep the prompts that were used last, limited by the memory that they take; threads may use it at once.

    Args:
        max_bytes: Maximum size of the keys and values in bytes; 0 to keep none.
        metrics: Counters of the service.
        clock: Function that returns the time in seconds.

    Attributes:
        bytes: Size of the keys and values in bytes.
    """

    def __init__(self, max_bytes: int, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.RLock()
        self._prompts: OrderedDict[Hashable, tuple[CachedPrompt, float]] = OrderedDict()  # in the order of their use
        self.bytes = 0

    @property
    def enabled(self) -> bool:
        """Whether prompts are kept at all."""
        return self._max_bytes > 0

    def get(self, key: Hashable) -> CachedPrompt | None:
        """Return the prompt of a key, or None, and count a hit or a miss."""
        with self._lock:
            self.remove_unused()
            found = self._prompts.get(key)
            if found is None:
                self._metrics.prompt_cache_misses.inc()
                return None
            self._prompts[key] = (found[0], self._clock())
            self._prompts.move_to_end(key)
            self._metrics.prompt_cache_hits.inc()
            return found[0]

    def add(self, key: Hashable, prompt: CachedPrompt) -> None:
        """Keep a prompt, in place of those that were not used for longest; one above the limit is not kept."""
        if prompt.nbytes > self._max_bytes:
            return
        with self._lock:
            self._remove(key)
            self._prompts[key] = (prompt, self._clock())
            self.bytes += prompt.nbytes
            while self.bytes > self._max_bytes:
                self._remove(next(iter(self._prompts)))
            self._metrics.prompt_cache_bytes.set(self.bytes)

    def clear(self) -> None:
        """Remove all prompts."""
        with self._lock:
            self._prompts.clear()
            self.bytes = 0
            self._metrics.prompt_cache_bytes.set(0)

    def remove_unused(self) -> None:
        """Remove the prompts that were not used for `MAX_SECONDS`."""
        with self._lock:
            earliest = self._clock() - MAX_SECONDS
            while self._prompts and next(iter(self._prompts.values()))[1] < earliest:
                self._remove(next(iter(self._prompts)))
            self._metrics.prompt_cache_bytes.set(self.bytes)

    def _remove(self, key: Hashable) -> None:
        removed = self._prompts.pop(key, None)
        if removed is not None:
            self.bytes -= removed[0].nbytes

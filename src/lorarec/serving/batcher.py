"""Dynamic batching: requests that wait at the same time share one pass of the model."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorarec.serving.engine import ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.health import WatchedThread
from lorarec.serving.metrics import Metrics

#: Seconds of one pass, or of one change of the adapters, after which the worker thread counts as stuck.
STUCK_SECONDS = 300.0


@dataclass(frozen=True)
class _PendingRequest:
    request: ScoringRequest
    scores: asyncio.Future[np.ndarray]


@dataclass(frozen=True)
class _PendingCall:
    function: Callable[[], Any]
    result: asyncio.Future[Any]


class Batcher:
    """Queue of scoring requests in front of one worker thread.

    The oldest request opens a batch. The requests behind it join in order while the padded tokens fit the budget, as do
    those that arrive within `wait` seconds. Function calls run between batches, in order with the requests, so that a
    change of the model affects all requests queued after it and none before. A request whose client disconnects is
    dropped.

    Args:
        score: Function that scores a batch of requests; it runs in the worker thread.
        token_budget: Maximum of requests times tokens of the longest one in a batch; a longer request is scored alone.
        wait: Seconds that a batch waits for more requests.
        limit: Maximum number of requests that are prepared, queued or scored at once.
        metrics: Counters of the service.
    """

    def __init__(
        self,
        score: Callable[[Sequence[ScoringRequest]], list[np.ndarray]],
        token_budget: int,
        wait: float,
        limit: int,
        metrics: Metrics,
    ) -> None:
        self._score = score
        self._token_budget = token_budget
        self._wait = wait
        self._limit = limit
        self._metrics = metrics
        self._queue: deque[_PendingRequest | _PendingCall] = deque()
        self._in_progress = 0
        self._seconds_per_request = 0.1
        self._arrived = asyncio.Event()
        self._stopping = False
        self._thread = WatchedThread("model", STUCK_SECONDS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to process the queue; an event loop must be running."""
        self._task = asyncio.create_task(self._process_queue())

    async def stop(self) -> None:
        """Process what is queued, then end the worker thread; if this is cancelled, the thread is not waited for."""
        self._stopping = True
        self._arrived.set()
        try:
            if self._task is not None:
                await asyncio.shield(self._task)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether the queue is being processed."""
        return self._task is not None and not self._task.done() and not self._thread.stuck

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request as in progress, from before its prompt is built until its response is ready.

        Raises:
            ApiError: 429 with the expected waiting time, if too many requests are in progress.
        """
        if self._in_progress >= self._limit:
            self._metrics.rejected.inc()
            seconds = max(1, math.ceil(self._in_progress * self._seconds_per_request))
            raise ApiError(429, f"{self._limit} requests are waiting: try again in {seconds} s", None, seconds)
        self._in_progress += 1
        self._metrics.in_progress.set(self._in_progress)
        try:
            yield
        finally:
            self._in_progress -= 1
            self._metrics.in_progress.set(self._in_progress)

    async def score(self, requests: Sequence[ScoringRequest]) -> list[np.ndarray]:
        """Score requests without a function call between them; if this is cancelled, they leave the queue.

        Returns:
            The scores (candidates,) of each request.
        """
        loop = asyncio.get_running_loop()
        pending = [_PendingRequest(request, loop.create_future()) for request in requests]
        for each in pending:
            self._enqueue(each)
        return list(await asyncio.gather(*(each.scores for each in pending)))

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the worker thread, after all that is queued, and return its result."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._enqueue(_PendingCall(function, result))
        return await result

    def _enqueue(self, pending: _PendingRequest | _PendingCall) -> None:
        self._queue.append(pending)
        self._arrived.set()

    async def _process_queue(self) -> None:
        while True:
            while not self._queue:
                if self._stopping:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            first = self._queue[0]
            if isinstance(first, _PendingCall):
                self._queue.popleft()
                await self._run(first.function, [first.result], lambda value: [value])
            elif batch := await self._next_batch():
                await self._run_batch(batch)

    async def _next_batch(self) -> list[_PendingRequest]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait
        batch: list[_PendingRequest] = []
        while self._fill(batch) and not self._stopping:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), deadline - loop.time())
            except TimeoutError:
                break
        self._metrics.dropped.inc(sum(pending.scores.done() for pending in batch))
        return [pending for pending in batch if not pending.scores.done()]

    def _fill(self, batch: list[_PendingRequest]) -> bool:
        """Move requests from the queue to the batch; return whether more requests could join it."""
        while self._queue:
            pending = self._queue[0]
            if isinstance(pending, _PendingCall):
                return False
            longest = max(other.request.example.length for other in (*batch, pending))
            if batch and (len(batch) + 1) * longest > self._token_budget:
                return False
            self._queue.popleft()
            batch.append(pending)
        return True

    async def _run_batch(self, batch: list[_PendingRequest]) -> None:
        requests = [pending.request for pending in batch]
        began = time.perf_counter()
        await self._run(lambda: self._score(requests), [pending.scores for pending in batch], list)
        elapsed = time.perf_counter() - began
        self._seconds_per_request += 0.1 * (elapsed / len(batch) - self._seconds_per_request)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_tokens.observe(len(batch) * max(request.example.length for request in requests))
        self._metrics.batch_seconds.observe(elapsed)

    async def _run(
        self,
        function: Callable[[], Any],
        futures: Sequence[asyncio.Future[Any]],
        split: Callable[[Any], Sequence[Any]],
    ) -> None:
        """Run a function in the worker thread and set the futures to the parts of its result, or to its exception."""
        try:
            values = split(await asyncio.get_running_loop().run_in_executor(self._thread, function))
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, value in zip(futures, values, strict=True):
            if not future.done():
                future.set_result(value)

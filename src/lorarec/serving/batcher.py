"""Micro-batching: requests that wait at the same time share one pass of the model."""

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

#: Seconds of one pass, or of a change of the adapters, after which the worker counts as stuck.
STUCK_SECONDS = 300.0


@dataclass(frozen=True)
class _Job:
    row: ScoringRequest
    scores: asyncio.Future[np.ndarray]


@dataclass(frozen=True)
class _Call:
    function: Callable[[], Any]
    result: asyncio.Future[Any]


class Batcher:
    """A queue in front of one worker thread.

    The oldest request opens a batch; those behind it join in order while the padded tokens fit the budget, and for
    `wait` seconds those that arrive. Calls run between batches, in order with them, so that a change of the model is
    seen by all requests queued after it and by none before. A request whose client left is dropped.

    Args:
        score: scores of each of some rows; runs in the worker thread.
        token_budget: rows times the longest row of a batch at most; a longer row goes alone.
        wait: seconds a batch that is not full waits for more.
        limit: requests inside the service at once, being prepared, waiting or scored.
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
        self._queue: deque[_Job | _Call] = deque()
        self._inside = 0
        self._seconds_each = 0.1
        self._arrived = asyncio.Event()
        self._stopping = False
        self._thread = WatchedThread("model", STUCK_SECONDS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; in a running event loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what is queued, then end the worker thread; cancelling this leaves the thread to itself."""
        self._stopping = True
        self._arrived.set()
        try:
            if self._task is not None:
                await asyncio.shield(self._task)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether the queue is being worked on."""
        return self._task is not None and not self._task.done() and not self._thread.stuck

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as inside the service, from before its prompt is built until it has its answer.

        Raises:
            Problem: 429 with the time the requests inside will take, when there are too many.
        """
        if self._inside >= self._limit:
            self._metrics.rejected.inc()
            seconds = max(1, math.ceil(self._inside * self._seconds_each))
            raise ApiError(429, f"{self._limit} requests are waiting: try again in {seconds} s", None, seconds)
        self._inside += 1
        self._metrics.inside.set(self._inside)
        try:
            yield
        finally:
            self._inside -= 1
            self._metrics.inside.set(self._inside)

    async def score(self, rows: Sequence[ScoringRequest]) -> list[np.ndarray]:
        """Scores (candidates,) of each row; no call comes between rows, cancelling this drops them from the queue."""
        loop = asyncio.get_running_loop()
        jobs = [_Job(row, loop.create_future()) for row in rows]
        for job in jobs:
            self._add(job)
        return list(await asyncio.gather(*(job.scores for job in jobs)))

    async def call(self, function: Callable[[], Any]) -> Any:
        """What a function returns that runs in the worker thread after all that is queued, between batches."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._add(_Call(function, result))
        return await result

    def _add(self, item: _Job | _Call) -> None:
        self._queue.append(item)
        self._arrived.set()

    async def _work(self) -> None:
        while True:
            while not self._queue:
                if self._stopping:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            first = self._queue[0]
            if isinstance(first, _Call):
                self._queue.popleft()
                await self._run(first.function, [first.result], lambda value: [value])
            elif batch := await self._next_batch():
                await self._run_batch(batch)

    async def _next_batch(self) -> list[_Job]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait
        batch: list[_Job] = []
        while self._fill(batch) and not self._stopping:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), deadline - loop.time())
            except TimeoutError:
                break
        self._metrics.dropped.inc(sum(job.scores.done() for job in batch))
        return [job for job in batch if not job.scores.done()]

    def _fill(self, batch: list[_Job]) -> bool:
        """Move jobs from the queue into the batch; whether there is room for more."""
        while self._queue:
            job = self._queue[0]
            if isinstance(job, _Call):
                return False
            longest = max(other.row.example.length for other in (*batch, job))
            if batch and (len(batch) + 1) * longest > self._token_budget:
                return False
            self._queue.popleft()
            batch.append(job)
        return True

    async def _run_batch(self, batch: list[_Job]) -> None:
        rows = [job.row for job in batch]
        began = time.perf_counter()
        await self._run(lambda: self._score(rows), [job.scores for job in batch], list)
        took = time.perf_counter() - began
        self._seconds_each += 0.1 * (took / len(batch) - self._seconds_each)
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_tokens.observe(len(rows) * max(row.example.length for row in rows))
        self._metrics.batch_seconds.observe(took)

    async def _run(
        self,
        function: Callable[[], Any],
        futures: Sequence[asyncio.Future[Any]],
        parts: Callable[[Any], Sequence[Any]],
    ) -> None:
        """Run a function in the worker thread and hand its parts, or its error, to those who still wait for them."""
        try:
            values = parts(await asyncio.get_running_loop().run_in_executor(self._thread, function))
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, value in zip(futures, values, strict=True):
            if not future.done():
                future.set_result(value)

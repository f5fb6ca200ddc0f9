"""Dynamic batching: requests that wait at the same time share passes of the model."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorarec.serving.engine import ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.health import WatchedThread
from lorarec.serving.metrics import Metrics

#: Seconds of one pass, or of one change of the adapters, after which the worker thread counts as stuck.
STUCK_SECONDS = 300.0
#: Weight of earlier passes and requests in a mean, in relation to the latest one.
DECAY = 0.9

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _PendingRequest:
    request: ScoringRequest
    tokens: int
    result: asyncio.Future[np.ndarray]
    scoring_began: float = 0.0


@dataclass(frozen=True)
class _PendingCall:
    function: Callable[[], Any]
    result: asyncio.Future[Any]


class Batcher:
    """Queue of scoring requests in front of the worker threads, one for each instance of the model.

    When a thread is free, the oldest request opens a batch. Of the requests behind it, those whose lengths are closest
    to its own join while the padded tokens fit the budget, as do those that arrive within `wait` seconds. Function
    calls run alone, in order with the requests, so that a change of the model affects all requests queued after it and
    none before. A request whose client disconnects is dropped. The time that a request will wait is expected from the
    number of tokens before it and the speed of the latest passes.

    Args:
        scorers: Functions that score a batch of requests, one for each worker thread.
        token_budget: Maximum of requests times tokens of the longest one in a batch; a longer request is scored alone.
        wait: Seconds that a batch waits for more requests.
        limit: Maximum number of requests that are prepared, queued or scored at once.
        metrics: Counters of the service.
        max_wait: Maximum number of seconds that a request is expected to wait; further requests are refused.
    """

    def __init__(
        self,
        scorers: Sequence[Callable[[Sequence[ScoringRequest]], list[np.ndarray]]],
        token_budget: int,
        wait: float,
        limit: int,
        metrics: Metrics,
        max_wait: float = math.inf,
    ) -> None:
        self._threads = {WatchedThread("model", STUCK_SECONDS): score for score in scorers}
        self._free = list(self._threads)
        self._passes: set[asyncio.Task[None]] = set()
        self._token_budget = token_budget
        self._wait = wait
        self._limit = limit
        self._metrics = metrics
        self._max_wait = max_wait
        self._queue: deque[_PendingRequest | _PendingCall] = deque()
        self._in_progress = 0
        self._in_queue = 0
        self._queued_tokens = 0
        self._pass_tokens = 0
        # The end of the latest pass, or the beginning of the first one after a time without passes.
        self._busy_since = 0.0
        # Decayed sums over passes, and a decayed mean over requests.
        self._seconds = 0.0
        self._tokens = 0.0
        self._tokens_per_request = 0.0
        self._check: ScoringRequest | None = None
        self._works = True
        self._arrived = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def measure_speed(self, request: ScoringRequest) -> None:
        """Measure the speed of the model by a request, before the queue is processed.

        It is scored twice, since a model's first pass is slower than the others.
        """
        score = next(iter(self._threads.values()))
        score([request])
        began = time.perf_counter()
        score([request])
        self._add_pass(time.perf_counter() - began, request.example.length)

    def check_with(self, request: ScoringRequest) -> None:
        """Let a failed pass be followed by one of a request that is known to work, to learn whether the model does."""
        self._check = request

    def start(self) -> None:
        """Start to process the queue; an event loop must be running."""
        self._task = asyncio.create_task(self._process_queue())

    async def stop(self) -> None:
        """Process what is queued, then end the worker threads; if this is cancelled, they are not waited for."""
        self._stopping = True
        self._arrived.set()
        try:
            if self._task is not None:
                await asyncio.shield(self._task)
        finally:
            for thread in self._threads:
                thread.shutdown(wait=False, cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether the queue is being processed."""
        return self._task is not None and not self._task.done() and not any(each.stuck for each in self._threads)

    @property
    def works(self) -> bool:
        """Whether the model works: False after it failed to score the request of `check_with`, until it scores it."""
        return self._works

    async def recheck(self) -> None:
        """Score the request of `check_with` if the model did not work, since the fault may be gone."""
        check = self._check
        if not self._works and check is not None:
            score = next(iter(self._threads.values()))
            with suppress(Exception):  # it is logged already that the model does not work
                await self.call(lambda: score([check]))
                self._works = True

    @property
    def idle(self) -> bool:
        """Whether no request is prepared, queued or scored."""
        return not self._in_progress and not self._in_queue and not self._queue and not self._pass_tokens

    def expected_seconds(self) -> float:
        """Return the number of seconds in which the requests that are queued or scored now are expected to be done.

        It is 0 until the speed of the model is known, by `measure_speed` or the first pass.
        """
        if not self._tokens:
            return 0.0
        seconds_per_token = self._seconds / self._tokens
        elapsed = time.perf_counter() - self._busy_since
        running = max(0.0, self._pass_tokens * seconds_per_token - elapsed)
        return running + self._queued_tokens * seconds_per_token

    @contextmanager
    def admit(self, scored: bool = True) -> Iterator[None]:
        """Count a request as in progress, from before its prompt is built until its response is ready.

        Args:
            scored: Whether the request needs the model.

        Raises:
            ApiError: 429 with the expected waiting time, if too many requests are in progress, or they take too long.
        """
        if self._in_progress >= self._limit:
            raise self._refusal(f"{self._limit} requests are waiting")
        if scored:
            self._check_wait()
        self._in_progress += 1
        self._metrics.in_progress.set(self._in_progress)
        try:
            yield
        finally:
            self._in_progress -= 1
            self._metrics.in_progress.set(self._in_progress)

    def _check_wait(self) -> None:
        if self.expected_seconds() > self._max_wait:
            raise self._refusal(f"the requests that are waiting take longer than {self._max_wait:g} s")

    def _refusal(self, reason: str) -> ApiError:
        self._metrics.rejected.inc()
        # The tokens of requests that are not yet in the queue are taken to be as many as those of the latest ones.
        seconds_per_token = self._seconds / self._tokens if self._tokens else 0.0
        unqueued = max(0, self._in_progress - self._in_queue) * self._tokens_per_request * seconds_per_token
        seconds = max(1, math.ceil(self.expected_seconds() + unqueued))
        return ApiError(429, f"{reason}: try again in {seconds} s", None, seconds)

    async def score(self, requests: Sequence[ScoringRequest]) -> list[np.ndarray]:
        """Score requests without a function call between them; if this is cancelled, they leave the queue.

        Returns:
            The scores (candidates,) of each request.

        Raises:
            ApiError: 429 with the expected waiting time, if the requests in the queue take too long; 503, if the queue
                is not processed any more.
        """
        self._check_wait()
        loop = asyncio.get_running_loop()
        pending = [_PendingRequest(each, each.example.length, loop.create_future()) for each in requests]
        tokens = sum(each.tokens for each in pending)
        self._tokens_per_request += (1 - DECAY) * (tokens - self._tokens_per_request)
        for each in pending:
            self._enqueue(each)
        self._queued_tokens += tokens
        self._in_queue += 1
        queued = time.perf_counter()
        try:
            scores = list(await asyncio.gather(*(each.result for each in pending)))
            began = min(each.scoring_began for each in pending)
            self._metrics.add_stage("queue", queued, began)
            self._metrics.add_stage("model", began, time.perf_counter())
            return scores
        except asyncio.CancelledError:
            self._remove_cancelled()
            raise
        finally:
            self._in_queue -= 1

    def _remove_cancelled(self) -> None:
        """Remove requests of clients that disconnected from the queue."""
        remaining = [each for each in self._queue if isinstance(each, _PendingCall) or not each.result.cancelled()]
        self._queue.clear()
        self._queue.extend(remaining)
        self._queued_tokens = sum(each.tokens for each in remaining if isinstance(each, _PendingRequest))

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in a worker thread, after all that is queued and beside no pass, and return its result.

        Raises:
            ApiError: 503, if the queue is not processed any more.
        """
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._enqueue(_PendingCall(function, result))
        return await result

    def _enqueue(self, pending: _PendingRequest | _PendingCall) -> None:
        if self._task is not None and self._task.done():
            raise ApiError(503, "the service is stopping: try again", None, 1)
        self._queue.append(pending)
        self._arrived.set()

    async def _process_queue(self) -> None:
        try:
            await self._process_until_stopped()
        finally:
            for pending in self._queue:  # if this was cancelled, nobody else would end their waiting
                pending.result.cancel()

    async def _process_until_stopped(self) -> None:
        while True:
            while not self._queue:
                if self._stopping:
                    await self._finish_passes()
                    return
                self._arrived.clear()
                await self._arrived.wait()
            first = self._queue[0]
            if isinstance(first, _PendingCall):
                await self._finish_passes()
                self._queue.popleft()
                await self._run(self._free[0], first.function, [first.result], lambda value: [value])
            elif not self._free:
                await asyncio.wait(self._passes, return_when=asyncio.FIRST_COMPLETED)
            elif batch := await self._next_batch():
                task = asyncio.create_task(self._run_batch(self._free.pop(), batch))
                self._passes.add(task)
                task.add_done_callback(self._passes.discard)

    async def _finish_passes(self) -> None:
        if self._passes:
            await asyncio.wait(self._passes)

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
            except asyncio.CancelledError:
                for pending in batch:
                    pending.result.cancel()
                raise
        return [pending for pending in batch if not pending.result.done()]

    def _fill(self, batch: list[_PendingRequest]) -> bool:
        """Move requests from the queue to the batch; return whether more requests could join it."""
        waiting: list[_PendingRequest] = []
        for pending in self._queue:
            if isinstance(pending, _PendingCall):
                break
            waiting.append(pending)
        has_call = len(waiting) < len(self._queue)
        is_full = False
        oldest = (batch or waiting)[0].tokens if batch or waiting else 0
        for pending in sorted(waiting, key=lambda each: abs(each.tokens - oldest)):
            longest = max(other.tokens for other in (*batch, pending))
            if batch and (len(batch) + 1) * longest > self._token_budget:
                is_full = True
                continue
            self._queue.remove(pending)
            self._queued_tokens -= pending.tokens
            batch.append(pending)
        return not has_call and not is_full

    async def _run_batch(self, thread: WatchedThread, batch: list[_PendingRequest]) -> None:
        requests = [pending.request for pending in batch]
        tokens = sum(pending.tokens for pending in batch)
        began = time.perf_counter()
        if not self._pass_tokens:
            self._busy_since = began
        self._pass_tokens += tokens
        for pending in batch:
            pending.scoring_began = began
        score = self._threads[thread]
        if not await self._run(thread, lambda: score(requests), [pending.result for pending in batch], list):
            await self._check_model(thread)
        self._free.append(thread)
        ended = time.perf_counter()
        self._pass_tokens -= tokens
        # With several passes at once, the time since the end of the last one is what these tokens took.
        self._add_pass(ended - self._busy_since, tokens)
        self._busy_since = ended
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_tokens.observe(len(batch) * max(pending.tokens for pending in batch))
        self._metrics.batch_seconds.observe(ended - began)

    def _add_pass(self, seconds: float, tokens: int) -> None:
        self._seconds = DECAY * self._seconds + seconds
        self._tokens = DECAY * self._tokens + tokens

    async def _run(
        self,
        thread: WatchedThread,
        function: Callable[[], Any],
        futures: Sequence[asyncio.Future[Any]],
        split: Callable[[Any], Sequence[Any]],
    ) -> bool:
        """Run a function in the worker thread and set the futures to the parts of its result, or to its exception.

        Returns:
            Whether it succeeded.
        """
        try:
            values = split(await asyncio.get_running_loop().run_in_executor(thread, function))
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return False
        for future, value in zip(futures, values, strict=True):
            if not future.done():
                future.set_result(value)
        return True

    async def _check_model(self, thread: WatchedThread) -> None:
        """Learn whether the model failed, as after an error of its device, or only the requests of one pass did."""
        check, score = self._check, self._threads[thread]
        if check is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(thread, lambda: score([check]))
        except Exception as error:
            if self._works:
                logger.error("the model fails: restart the service unless this ends: %s", error)
            self._works = False
        else:
            self._works = True

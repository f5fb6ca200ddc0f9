"""Shadow scoring: variants that score a share of the requests for comparison, after the answer was given."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context

from lorarec.serving.batcher import Batcher
from lorarec.serving.case_scoring import AdapterName
from lorarec.serving.experiment import Variant
from lorarec.serving.metrics import Metrics
from lorarec.serving.response_schemas import RankResponse

#: Maximum number of requests that wait to be scored by shadow variants.
WAITING = 8
#: Seconds for which such a request waits for the model to be idle, and between two looks at it.
WAIT_SECONDS = 2.0
LOOK_SECONDS = 0.02

logger = logging.getLogger(__name__)


class ShadowScorer:
    """Score requests by shadow variants while the model has nothing else to do.

    A request is dropped, and counted, if too many wait or the model is busy. What goes wrong is counted and logged, and
    never reaches a client.

    Args:
        batcher: Queue in front of the model.
        metrics: Counters of the service.
    """

    def __init__(self, batcher: Batcher, metrics: Metrics) -> None:
        self._batcher = batcher
        self._metrics = metrics
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def start(
        self,
        variant: Variant,
        answer: Callable[[AdapterName], Awaitable[tuple[RankResponse, int]]],
        log: Callable[[RankResponse, int], None],
    ) -> None:
        """Score a request by a shadow variant, at some later time, and log the result.

        Args:
            variant: The variant.
            answer: Function that answers the request by an adapter, a mixture or the fusion, and returns the number of
                candidates as well.
            log: Function that logs the answer.
        """
        if len(self._tasks) >= WAITING:
            self._count(variant, "dropped")
            return
        # A context of its own: durations and versions are not those of the request.
        task = asyncio.get_running_loop().create_task(self._score(variant, answer, log), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _score(
        self,
        variant: Variant,
        answer: Callable[[AdapterName], Awaitable[tuple[RankResponse, int]]],
        log: Callable[[RankResponse, int], None],
    ) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            self._count(variant, "dropped")
            return
        try:
            if not await self._becomes_idle():
                self._count(variant, "dropped")
                return
            log(*await answer(variant.adapter))
            self._count(variant, "scored")
        except Exception as error:
            self._count(variant, "failed")
            logger.warning("shadow variant %s cannot be scored: %s", variant.name, error)
        finally:
            self._turn.release()

    async def _becomes_idle(self) -> bool:
        """Wait for a while until the model has nothing to do; return whether it has."""
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_SECONDS)  # at least once, so that the answer of the request is sent first
            if self._batcher.idle:
                return True
        return False

    def _count(self, variant: Variant, result: str) -> None:
        self._metrics.shadow.labels(variant.name, result).inc()

    def close(self) -> None:
        """Abandon the requests that wait."""
        for task in self._tasks:
            task.cancel()

"""The queue: batches in order and within the budget, without requests of clients that disconnected."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from lorarec.prompts import Example
from lorarec.serving.batcher import Batcher
from lorarec.serving.engine import ScoringRequest
from lorarec.serving.errors import ApiError
from lorarec.serving.metrics import Metrics


def request(tokens: int) -> ScoringRequest:
    """Return a request whose score is the length of its prompt."""
    return ScoringRequest(Example([0] * (tokens - 1), [[0]]), builder=None)  # type: ignore[arg-type]


class Scorer:
    """Return lengths as scores once it may, and record the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = threading.Event()

    def __call__(self, rows: Sequence[ScoringRequest]) -> list[np.ndarray]:
        self.may.wait(10)
        self.batches.append([row.example.length for row in rows])
        if any(row.example.length == 13 for row in rows):
            raise RuntimeError("thirteen")
        return [np.array([float(row.example.length)]) for row in rows]


def run(scenario: Callable[[Batcher, Scorer], Awaitable[Any]], **options: Any) -> Scorer:
    scorer = Scorer()
    chosen: dict[str, Any] = {"token_budget": 100, "wait": 0.0, "limit": 9, "metrics": Metrics(), **options}

    async def whole() -> None:
        batcher = Batcher([scorer], **chosen)
        batcher.start()
        await scenario(batcher, scorer)
        await batcher.stop()

    asyncio.run(whole())
    return scorer


async def queued(batcher: Batcher, lengths: Sequence[int]) -> list[asyncio.Task[list[np.ndarray]]]:
    """Enqueue requests."""
    tasks = [asyncio.ensure_future(batcher.score([request(length)])) for length in lengths]
    await asyncio.sleep(0.02)
    return tasks


def test_batches_fill_up_to_the_budget_with_the_closest_lengths() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        first = await queued(batcher, [5])
        rest = await queued(batcher, [20, 200, 33, 10, 30, 50, 51])
        scorer.may.set()
        found = [scores[0].item() for scores in await asyncio.gather(*first, *rest)]
        assert found == [5, 20, 200, 33, 10, 30, 50, 51]

    assert run(scenario).batches == [[5], [20, 10, 30], [200], [33, 50], [51]]


def test_passes_of_several_threads_run_at_once_and_calls_alone() -> None:
    class Together(Scorer):
        """Score once two threads are here."""

        def __init__(self) -> None:
            super().__init__()
            self.barrier = threading.Barrier(2, timeout=10)
            self.running = 0

        def __call__(self, rows: Sequence[ScoringRequest]) -> list[np.ndarray]:
            self.running += 1
            self.barrier.wait()
            self.running -= 1
            return [np.array([float(row.example.length)]) for row in rows]

    async def whole() -> None:
        scorer = Together()
        batcher = Batcher([scorer, scorer], 10, 0.0, 99, Metrics())
        batcher.start()
        before = await queued(batcher, [6, 7, 8, 9])
        call = asyncio.ensure_future(batcher.call(lambda: scorer.running))
        after = await queued(batcher, [8, 9])
        assert [scores[0].item() for scores in await asyncio.gather(*before, *after)] == [6, 7, 8, 9, 8, 9]
        assert await call == 0
        await batcher.stop()

    asyncio.run(whole())


def test_a_batch_waits_for_those_that_come() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        scorer.may.set()
        first = await queued(batcher, [5])
        await asyncio.gather(*first, *await queued(batcher, [6]))

    assert run(scenario, wait=0.5).batches == [[5, 6]]


def test_requests_of_disconnected_clients_are_not_scored() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        tasks = [*await queued(batcher, [5]), *await queued(batcher, [6, 7, 8])]
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0)
        scorer.may.set()
        await asyncio.wait(tasks)
        assert [tasks[place].result()[0].item() for place in (1, 3)] == [6, 8]

    assert run(scenario).batches == [[5], [6, 8]]


def test_calls_keep_their_place_between_batches() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        first = [*await queued(batcher, [5]), *await queued(batcher, [6])]
        call = asyncio.ensure_future(batcher.call(lambda: len(scorer.batches)))
        rest = await queued(batcher, [7])
        scorer.may.set()
        await asyncio.gather(*first, *rest)
        assert await call == 2

    assert run(scenario).batches == [[5], [6], [7]]


def test_rows_of_one_request_come_together() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        await queued(batcher, [5])
        asked = asyncio.ensure_future(batcher.score([request(6), request(7), request(200)]))
        call = asyncio.ensure_future(batcher.call(lambda: len(scorer.batches)))
        await asyncio.sleep(0.02)
        scorer.may.set()
        assert [scores.item() for scores in await asked] == [6, 7, 200]
        assert await call == 3

    assert run(scenario).batches == [[5], [6, 7], [200]]


def test_an_error_goes_to_those_in_the_batch_alone() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        scorer.may.set()
        with pytest.raises(RuntimeError, match="thirteen"):
            await batcher.score([request(13)])
        assert (await batcher.score([request(14)]))[0].item() == 14

    run(scenario)


def test_stop_answers_what_is_queued() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        tasks = await queued(batcher, [5, 6, 60, 60])
        stopping = asyncio.ensure_future(batcher.stop())
        await asyncio.sleep(0.01)
        scorer.may.set()
        await stopping
        assert [task.result()[0].item() for task in tasks] == [5, 6, 60, 60]

    run(scenario, wait=60.0, token_budget=10)


def test_what_waits_ends_when_the_queue_is_not_processed_any_more() -> None:
    """The event loop cancels all its tasks at the end of a process; none may wait for the queue then."""

    async def scenario() -> None:
        scorer = Scorer()
        batcher = Batcher([scorer], token_budget=100, wait=0.0, limit=9, metrics=Metrics())
        batcher.start()
        scored = await queued(batcher, [5])
        waiting = [asyncio.ensure_future(batcher.call(scorer.may.is_set)), *await queued(batcher, [6])]
        assert batcher._task is not None
        batcher._task.cancel()
        for task in waiting:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
        assert not batcher.alive
        for late in (batcher.call(scorer.may.is_set), batcher.score([request(7)])):
            with pytest.raises(ApiError, match="the service is stopping") as error:
                await late
            assert error.value.status == 503
        scorer.may.set()
        assert [each.item() for each in await scored[0]] == [5]

    asyncio.run(scenario())


def test_a_batch_that_waits_for_more_requests_ends_when_the_queue_is_not_processed_any_more() -> None:
    async def scenario() -> None:
        batcher = Batcher([Scorer()], token_budget=100, wait=60.0, limit=9, metrics=Metrics())
        batcher.start()
        [waiting] = await queued(batcher, [5])
        await asyncio.sleep(0.01)
        assert batcher._task is not None
        batcher._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_no_more_than_the_limit_is_admitted() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        scorer.may.set()
        with batcher.admit(), batcher.admit():
            with pytest.raises(ApiError) as refused, batcher.admit():
                pass
            assert refused.value.status == 429
            assert int(refused.value.headers["Retry-After"]) >= 1
        with batcher.admit():
            pass

    run(scenario, limit=2)


class TimedScorer(Scorer):
    """Take two milliseconds for each token."""

    def __call__(self, rows: Sequence[ScoringRequest]) -> list[np.ndarray]:
        time.sleep(0.002 * sum(row.example.length for row in rows))
        return super().__call__(rows)


def run_timed(scenario: Callable[[Batcher], Awaitable[Any]], **options: Any) -> None:
    async def whole() -> None:
        scorer = TimedScorer()
        scorer.may.set()
        batcher = Batcher([scorer], **{"token_budget": 10, "wait": 0.0, "limit": 9, "metrics": Metrics(), **options})
        batcher.measure_speed(request(50))
        batcher.start()
        await scenario(batcher)
        await batcher.stop()

    asyncio.run(whole())


def retry_after(batcher: Batcher) -> float:
    with pytest.raises(ApiError) as refused, batcher.admit():
        pass
    assert refused.value.status == 429
    return float(refused.value.headers["Retry-After"])


def test_requests_are_admitted_by_tokens() -> None:
    """Few tokens behind a few large requests would wait as long as behind many small ones."""

    async def scenario(batcher: Batcher) -> None:
        small = await queued(batcher, [10] * 40)  # 0.8 s
        with batcher.admit():
            pass
        assert 0.5 < batcher.expected_seconds() < 1
        large = await queued(batcher, [400])  # 0.8 s more
        retry_after(batcher)
        with pytest.raises(ApiError, match="take longer than 1 s: try again in"):  # its prompt was built meanwhile
            await batcher.score([request(2)])
        with batcher.admit(scored=False):
            pass
        await asyncio.gather(*small, *large)
        with batcher.admit():
            pass

    run_timed(scenario, max_wait=1.0, limit=99)


@pytest.mark.parametrize("tokens", [[1000, 200], [100] * 12])
def test_retry_after_is_the_time_that_the_others_take(tokens: list[int]) -> None:
    async def scenario(batcher: Batcher) -> None:
        with batcher.admit(), batcher.admit():
            waiting = await queued(batcher, tokens)
            began = time.perf_counter()
            seconds = retry_after(batcher)
            await asyncio.gather(*waiting)
            assert seconds - 1 < time.perf_counter() - began < seconds + 0.5

    run_timed(scenario, limit=2)


def test_requests_that_are_not_yet_in_the_queue_count_in_retry_after() -> None:
    async def scenario(batcher: Batcher) -> None:
        for _ in range(30):
            await batcher.score([request(50)])  # 0.1 s each
        waiting = [batcher.admit() for _ in range(20)]
        for each in waiting:
            each.__enter__()
        assert 1 < retry_after(batcher) <= 3
        for each in waiting:
            each.__exit__(None, None, None)

    run_timed(scenario, limit=20)


def test_abandoned_requests_leave_the_queue() -> None:
    async def scenario(batcher: Batcher) -> None:
        first, *rest = await queued(batcher, [100, *[200] * 10])
        for task in rest:
            task.cancel()
        await asyncio.sleep(0.01)
        assert batcher.expected_seconds() < 0.25
        await first
        assert (await batcher.score([request(3)]))[0].item() == 3
        assert batcher.expected_seconds() == 0

    run_timed(scenario)

"""The queue: batches in order and within the budget, without requests of clients that disconnected."""

import asyncio
import threading
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
        batcher = Batcher(scorer, **chosen)
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


def test_batches_fill_up_to_the_budget_in_order() -> None:
    async def scenario(batcher: Batcher, scorer: Scorer) -> None:
        first = await queued(batcher, [5])
        rest = await queued(batcher, [10, 20, 30, 30, 200, 50, 50, 51])
        scorer.may.set()
        found = [scores[0].item() for scores in await asyncio.gather(*first, *rest)]
        assert found == [5, 10, 20, 30, 30, 200, 50, 50, 51]

    assert run(scenario).batches == [[5], [10, 20, 30], [30], [200], [50, 50], [51]]


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

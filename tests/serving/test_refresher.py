"""Repeated calls go on after failures, of which those in a row are logged once."""

import asyncio

import pytest

from lorarec.errors import LorarecError
from lorarec.serving.refresher import Refresher


def test_calls_go_on_after_failures(caplog: pytest.LogCaptureFixture) -> None:
    failures = iter([LorarecError("away"), LorarecError("away"), None, LorarecError("again"), KeyError("bug"), None])
    done = asyncio.Event()

    async def fail() -> None:
        try:
            failure = next(failures)
        except StopIteration:
            done.set()
            return
        if failure is not None:
            raise failure

    async def scenario() -> None:
        refresher = Refresher([fail], 0.001)
        refresher.start()
        async with asyncio.timeout(10):
            await done.wait()
        await refresher.stop()

    asyncio.run(scenario())
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "away",
        "again",
        "changes of other replicas cannot be applied",
    ]

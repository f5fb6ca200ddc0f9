"""Faults of a database file, and of threads: what is reported, what still works, and that the process ends."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

import lorarec
from lorarec.errors import LorarecError
from lorarec.serving.database import CALL_SECONDS
from lorarec.serving.health import DatabaseState
from lorarec.serving.histories import DatabaseUnusable, Event, Histories
from lorarec.serving.service import Service

STORED = {"user_id": "u01", "candidates": ["x01"], "adapter": "general"}
GIVEN = {"history": ["x01"], "candidates": ["x02"], "adapter": "general"}
CLICK = {"events": [{"user_id": "u01", "item_id": "x29"}]}


@contextmanager
def deleted(path: Path) -> Iterator[None]:
    kept = path.with_suffix(".kept")
    path.rename(kept)
    yield
    assert not path.exists()  # no empty one in its place
    kept.rename(path)


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    kept = path.with_suffix(".kept")
    path.rename(kept)
    sqlite3.connect(path).close()
    yield
    kept.rename(path)


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    path.write_bytes(b"no database" + b"\xff" * (len(content) - 11))
    yield
    path.write_bytes(content)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def without_table(path: Path) -> Iterator[None]:
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE lorarec_events RENAME TO gone")
    yield
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE gone RENAME TO lorarec_events")


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (deleted, "unreachable"),
        (replaced, "unusable"),
        (damaged, "unusable"),
        (locked, "unusable"),
        (without_table, "unusable"),
    ],
)
def test_faults_of_the_file_are_reported_and_end(
    service: Service, play: Any, database_becomes: Any, tmp_path: Path, fault: Any, state: str
) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/rank", json=STORED)).status_code == 200
        await database_becomes(client, "ok")
        with fault(tmp_path / "histories.db"):
            refused = asyncio.gather(client.post("/v1/rank", json=STORED), client.post("/v1/events", json=CLICK))
            began = time.monotonic()
            assert (await client.post("/v1/rank", json=GIVEN)).status_code == 200
            assert (await client.get("/v1/items?query=red")).status_code == 200
            assert time.monotonic() - began < 2
            await database_becomes(client, state)
            assert [answer.status_code for answer in await refused] == [503, 503]
            assert time.monotonic() - began < 2 * CALL_SECONDS
        await database_becomes(client, "ok")
        assert (await client.post("/v1/events", json=CLICK)).json()["stored"] == 1
        assert service.histories.history("u01", 1) == ["x29"]

    play(service, scenario)


def test_a_full_file(service: Service, play: Any, database_becomes: Any) -> None:
    pages = [1 << 30]

    @event.listens_for(service.histories.engine, "checkout")
    def limited(connection: Any, record: Any, proxy: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages[0]}")

    async def scenario(client: httpx2.AsyncClient) -> None:
        await database_becomes(client, "ok")
        pages[0] = 1  # as many as there are
        many = {"events": [{"user_id": "a" * 400, "item_id": "x01"}] * 1000}
        assert (await client.post("/v1/events", json=many)).status_code == 503
        await database_becomes(client, "unusable")
        assert (await client.post("/v1/rank", json=STORED)).status_code == 200
        pages[0] = 1 << 30
        assert (await client.post("/v1/events", json=many)).status_code == 200
        await database_becomes(client, "ok")

    play(service, scenario)


def test_a_full_disk(tmp_path: Path, shop: Any) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        histories = Histories(f"sqlite:///{folder / 'h.db'}")
        histories.fill(shop)
        histories.check()
        with (folder / "other").open("wb") as other, suppress(OSError):
            while True:
                os.write(other.fileno(), b"\1" * 4096)
        with pytest.raises(DatabaseUnusable, match=r"full|disk I/O error"):
            histories.check()
        (folder / "other").unlink()
        histories.check()
        assert histories.append([Event("u03", "x29")]) == 1
        histories.close()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_the_result_of_a_slow_check_reaches_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes come every few seconds, and each check of a locked database fails after three."""
    monkeypatch.setattr("lorarec.serving.health.FRESH_SECONDS", 0.1)
    faults: list[DatabaseUnusable | None] = [DatabaseUnusable("it is locked"), None, None]

    class Slow:
        def check(self) -> None:
            time.sleep(0.3)
            if fault := faults.pop(0):
                raise fault

    async def scenario() -> list[str]:
        state, states = DatabaseState(Slow()), []  # type: ignore[arg-type]
        for _ in range(3):
            states.append(await state.current())
            assert state._check is not None
            await asyncio.wait([state._check])
        state.close()
        return states

    assert asyncio.run(scenario()) == ["ok", "unusable", "ok"]


def test_many_requests_for_a_database_that_hangs_leave_room(make_service: Callable[..., Service], play: Any) -> None:
    """Also for one that no deadline of a driver frees: calls are given up, and the queue stays free."""
    service = make_service(queue=20)
    release = threading.Event()
    service.histories.user_history = lambda *_: release.wait()  # type: ignore[assignment,method-assign]

    async def scenario(client: httpx2.AsyncClient) -> None:
        began = time.monotonic()
        waiting = [asyncio.ensure_future(client.post("/v1/rank", json=STORED)) for _ in range(40)]
        await asyncio.sleep(0.2)
        for _ in range(3):
            assert (await client.post("/v1/rank", json=GIVEN)).status_code == 200
        assert time.monotonic() - began < 3
        statuses = [answer.status_code for answer in await asyncio.gather(*waiting)]
        assert sorted(statuses) == [429] * 20 + [503] * 20
        assert time.monotonic() - began < 2 * CALL_SECONDS
        release.set()

    play(service, scenario)


@pytest.mark.parametrize("thread", ["prompts", "model"])
def test_a_thread_that_hangs_is_reported(
    service: Service, play: Any, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    release = threading.Event()
    batcher = service.batcher
    for each in {"prompts": [service._prompt_thread], "model": list(batcher._threads)}[thread]:
        monkeypatch.setattr(each, "_timeout", 0.3)

    def let_hang(patch: pytest.MonkeyPatch) -> None:
        if thread == "prompts":
            patch.setattr(service.prompts, "scoring_request", lambda *_: release.wait())
        for each in batcher._threads if thread == "model" else ():
            patch.setitem(batcher._threads, each, lambda *_: release.wait())

    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.get("/livez")).json() == {"status": "ok"}
        with monkeypatch.context() as patch:
            let_hang(patch)
            asked = asyncio.ensure_future(client.post("/v1/rank", json=GIVEN))
            async with asyncio.timeout(20):
                while service.alive:
                    await asyncio.sleep(0.01)
        for path, status in (("/livez", 503), ("/readyz", 503), ("/healthz", 503), ("/v1/items", 200)):
            assert (await client.get(path)).status_code == status
        assert (await client.get("/livez")).json() == {"status": "stuck"}
        asked.cancel()
        release.set()
        while (await client.get("/livez")).status_code != 200:
            await asyncio.sleep(0.01)
        assert (await client.post("/v1/rank", json=GIVEN)).status_code == 200

    play(service, scenario)


def test_a_model_that_fails_is_reported_and_one_request_that_fails_is_not(
    service: Service, served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = service.batcher
    right = dict(batcher._threads)

    def fail(requests: Any, everything: bool) -> Any:
        if everything or any(each.mixture.weights for each in requests):
            raise RuntimeError("device-side assert")
        return next(iter(right.values()))(requests)

    with served(service) as url, httpx2.Client(base_url=url, timeout=60) as client:
        for everything, status in ((False, 200), (True, 503)):
            with monkeypatch.context() as patch:
                for each in right:
                    patch.setitem(batcher._threads, each, partial(fail, everything=everything))
                failed = client.post("/v1/rank", json=GIVEN)
                assert (failed.status_code, failed.headers["connection"]) == (500, "close")
                began = time.monotonic()
                while client.get("/livez").status_code != status:
                    assert time.monotonic() - began < 20
                assert client.get("/readyz").status_code == status
                assert client.get("/v1/items").status_code == 200
        began = time.monotonic()  # the fault is gone, and no request says so
        while client.get("/livez").status_code != 200:
            assert time.monotonic() - began < 30
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/rank", json=GIVEN).status_code == 200
    assert [each.message for each in caplog.records if "the model fails" in each.message] == [
        "the model fails: restart the service unless this ends: device-side assert"
    ]


def test_unexpected_errors_and_slow_databases_are_in_the_log(
    service: Service, served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    def fail(*_: Any) -> None:
        raise RuntimeError("prompts are not built")

    monkeypatch.setattr("lorarec.serving.database.CALL_SECONDS", 0.2)
    with served(service) as url, monkeypatch.context() as patch:
        patch.setattr(service.prompts, "scoring_request", fail)
        patch.setattr(service.histories, "user_history", lambda *_: release.wait(10))
        assert httpx2.post(f"{url}/v1/rank", json=GIVEN).status_code == 500
        assert httpx2.post(f"{url}/v1/rank", json=STORED).status_code == 503
        release.set()
    assert "RuntimeError: prompts are not built" in caplog.text
    assert "the database did not answer within 0.2 s" in caplog.text


HANGING = """
import sys, threading
from pathlib import Path
from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.serving.server import listen, serve
from lorarec.serving.service import Service

dataset, adapters, backbone, database, hangs = sys.argv[1:]
service = Service(Backbone.from_pretrained(backbone), Dataset.load(Path(dataset)), Path(adapters), f"sqlite:///{database}")
bound = listen("127.0.0.1", 0)
for_ever = lambda *_: threading.Event().wait()
if hangs == "prompts":
    service.prompts.scoring_request = for_ever
else:
    service.histories.user_history = for_ever
print(bound.getsockname()[1], flush=True)
serve(service, bound, None, grace=1)
"""


@pytest.mark.parametrize(("hangs", "end"), [("prompts", signal.SIGTERM), ("database", signal.SIGINT)])
def test_a_process_with_a_thread_that_hangs_ends(
    serve_options: list[str], tmp_path: Path, hangs: str, end: signal.Signals
) -> None:
    """With requests under way, and others half sent."""
    dataset, _, adapters, _, backbone = serve_options
    command = [sys.executable, "-c", HANGING, dataset, adapters, backbone, str(tmp_path / "h.db"), hangs]
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    environment.pop("LORAREC_API_KEY", None)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"

        async def scenario() -> None:
            async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
                while True:
                    try:
                        await client.get("/livez")
                        break
                    except httpx2.TransportError:
                        await asyncio.sleep(0.05)
                asked = [asyncio.ensure_future(client.post("/v1/rank", json=STORED)) for _ in range(3)]
                _, half = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
                half.write(b"POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1")
                await asyncio.sleep(0.5)
                process.send_signal(end)
                began = time.monotonic()
                assert await asyncio.to_thread(process.wait, 20) in (-end, 128 + end, 1)
                assert time.monotonic() - began < 10
                await asyncio.gather(*asked, return_exceptions=True)
                half.close()

        asyncio.run(scenario())
    finally:
        process.kill()
        process.communicate()


def test_a_database_in_memory_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(LorarecError, match="in memory, which keeps nothing"):
            Histories(url)

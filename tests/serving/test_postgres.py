"""Histories in a real PostgreSQL server, through its restart; skipped where there is none."""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lorarec.backbone import Backbone
from lorarec.serving.histories import Event, Histories
from lorarec.serving.run import listen
from lorarec.serving.service import Service


class Server:
    """A cluster of its own, reached through TCP."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        self._data = folder / "data"
        with listen("127.0.0.1", 0) as bound:
            self.port = bound.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=lorarec", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()
        self.url = f"postgresql://lorarec@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "--wait", f"--log={self._folder / 'log'}", f"--options={options}", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        command = [self._programs / program, f"--pgdata={self._data}", *words]
        subprocess.run(command, check=True, user=self._user, stdout=subprocess.DEVNULL, cwd=self._folder)


@pytest.fixture
def server() -> Iterator[Server]:
    """PostgreSQL as Debian installs it, or as found in the PATH."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), shutil.which("initdb")]
    programs = next((Path(path).parent for path in reversed(found) if path), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed: on Debian, apt-get install postgresql")
    # The server refuses to run as root, and the folders of pytest are closed to others.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as name:
        if user is not None:
            os.chown(name, pwd.getpwnam(user).pw_uid, -1)
        server = Server(programs, Path(name), user)
        yield server
        server.stop()


def test_the_same_as_in_sqlite(server: Server, shop: Any) -> None:
    for _ in range(2):
        histories = Histories(server.url)
        histories.fill(shop)
        histories.close()
    histories = Histories(server.url)
    assert histories.history("u03", 100) == shop.interactions.filter(user_id="u03")["item_id"].to_list()
    click = Event("u03", "x29", None, "click")
    assert [histories.append([click, Event("u03", "x28")]), histories.append([click])] == [2, 0]
    assert histories.history("u03", 2) == ["x29", "x28"]
    user = "x'; DROP TABLE lorarec_events; -- é"
    histories.append([Event(user, "x01", -(2**63)), Event(user, "x02", 2**63 - 1)])
    assert histories.history(user, 9) == ["x01", "x02"]
    histories.close()


def test_a_restart_loses_no_event(
    server: Server, tiny_backbone: Backbone, offline: Any, adapters: Path, play: Any
) -> None:
    service = Service(tiny_backbone, offline.dataset, adapters, server.url)
    ranked = {"user_id": "new", "candidates": ["x01"], "adapter": "general"}

    def clicks(*numbers: int) -> dict[str, Any]:
        return {"events": [{"user_id": "new", "item_id": f"x{n:02}", "event_id": f"click-{n}"} for n in numbers]}

    async def scenario(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/events", json=clicks(1, 2))).json() == {"stored": 2, "known": 0}
        server.stop()
        assert (await client.post("/v1/events", json=clicks(3))).status_code == 503
        assert (await client.post("/v1/rank", json=ranked)).status_code == 503
        assert (await client.get("/healthz")).json()["database"] == "unreachable"
        given = {"history": ["x01"], "candidates": ["x02"], "adapter": "general"}
        assert (await client.post("/v1/rank", json=given)).status_code == 200
        server.start()
        assert (await client.get("/healthz")).json()["status"] == "ok"
        assert (await client.post("/v1/events", json=clicks(1, 2, 3))).json() == {"stored": 1, "known": 2}
        assert (await client.post("/v1/rank", json=ranked)).status_code == 200
        assert service.histories.history("new", 9) == ["x01", "x02", "x03"]

    play(service, scenario)


def test_events_sent_through_a_restart_are_stored_once(
    server: Server, tiny_backbone: Backbone, offline: Any, adapters: Path, play: Any
) -> None:
    """Clients send again what got 503, as they are told to."""
    service = Service(tiny_backbone, offline.dataset, adapters, server.url)
    sent, refused = [f"x{number:02}" for number in range(29)], 0

    async def scenario(client: httpx2.AsyncClient) -> None:
        stopped = asyncio.Event()

        async def click(item: str) -> None:
            nonlocal refused
            body = {"events": [{"user_id": "busy", "item_id": item, "event_id": item}]}
            while (status := (await client.post("/v1/events", json=body)).status_code) != 200:
                assert status == 503
                refused += 1
                await asyncio.sleep(0.02)

        async def clicks(items: list[str]) -> None:
            for place, item in enumerate(items):
                if place == len(items) // 2:
                    await stopped.wait()
                await click(item)

        clicking = [asyncio.ensure_future(clicks(sent[worker::4])) for worker in range(4)]
        while len(service.histories.history("busy", 100)) < 4:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop)
        stopped.set()
        while not refused:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*clicking)
        assert sorted(service.histories.history("busy", 100)) == sent

    play(service, scenario)

"""Histories in a real PostgreSQL server, through its restart; skipped where there is none."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError

import lorarec
from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.serving.database import CALL_SECONDS
from lorarec.serving.histories import Event, Histories
from lorarec.serving.migrations import MIGRATIONS
from lorarec.serving.service import Service
from tests.postgres import PostgresServer

#: Characters of four bytes; texts of 500 random ones do not fit into PostgreSQL's index rows, even compressed.
EMOJI = [chr(0x1F300 + number) for number in range(700)]


def test_the_same_as_in_sqlite(server: PostgresServer, shop: Any) -> None:
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


def test_batches_that_overlap_on_two_replicas_are_stored_once(server: PostgresServer, shop: Any) -> None:
    """Many clients send the same events in other orders and batches; none of them is refused."""
    replicas = [Histories(server.url) for _ in range(2)]
    for histories in replicas:
        histories.fill(shop)
    users = ["".join(random.Random(number).choices(EMOJI, k=500)) for number in range(6)]
    events = [Event(users[number % 6], "x29", number, users[number % 5] + str(number)) for number in range(60)]
    refused: list[Exception] = []

    def send(number: int) -> int:
        own, stored = random.Random(number).sample(events, 40), 0
        for place in range(0, 40, 10):
            try:
                stored += replicas[number % 2].append(own[place : place + 10])
            except SQLAlchemyError as error:
                refused.append(error)
        return stored

    with ThreadPoolExecutor(16) as threads:
        stored = sum(threads.map(send, range(48)))
    assert (refused, stored) == ([], 60)
    for user in users:
        assert [event.timestamp for event in replicas[0].events(user)] == [
            e.timestamp for e in events if e.user_id == user
        ]
    for histories in replicas:
        assert histories.delete(users[0]) == (10 if histories is replicas[0] else 0)
        histories.close()


def test_a_restart_loses_no_event(
    server: PostgresServer, tiny_backbone: Backbone, offline: Any, adapters: Path, play: Any
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
        async with asyncio.timeout(10):  # a check answers before it is done, if the machine is busy
            while (await client.get("/healthz")).json()["status"] != "ok":
                await asyncio.sleep(0.01)
        assert (await client.post("/v1/events", json=clicks(1, 2, 3))).json() == {"stored": 1, "known": 2}
        assert (await client.post("/v1/rank", json=ranked)).status_code == 200
        assert service.histories.history("new", 9) == ["x01", "x02", "x03"]

    play(service, scenario)


def test_events_sent_through_a_restart_are_stored_once(
    server: PostgresServer, tiny_backbone: Backbone, offline: Any, adapters: Path, play: Any
) -> None:
    """Clients send again what got 503, as the message says."""
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


#: For each database whose URL it reads, forks four processes that wait for each other and then fill it, and reports
#: the outcome of each. The processes share what is imported, which takes longest.
REPLICAS = """
import os, sys
from pathlib import Path
from lorarec.data import Dataset
from lorarec.serving.histories import Histories

def replica(url, started, results):
    dataset = Dataset.load(Path(sys.argv[1]))
    histories = Histories(url)
    os.write(results, b"ready\\n")
    os.read(started, 1)
    try:
        histories.fill(dataset)
        outcome = str(len(histories.history("u03", 1000)))
    except BaseException as error:
        outcome = f"{type(error).__name__} {error}".splitlines()[0]
    os.write(results, f"{outcome}\\n".encode())
    os._exit(0)

for line in sys.stdin:
    (started, start), (read, results) = os.pipe(), os.pipe()
    replicas = []
    for _ in range(4):
        replicas.append(os.fork())
        if not replicas[-1]:
            replica(line.strip(), started, results)
    outcomes = os.fdopen(read)
    for _ in replicas:
        outcomes.readline()
    os.write(start, b"...." )
    print(*[outcomes.readline().strip() for _ in replicas], flush=True)
    for process in replicas:
        os.waitpid(process, 0)
"""


def test_replicas_that_start_together_on_an_empty_database(server: PostgresServer, shop: Any, tmp_path: Path) -> None:
    shop.save(tmp_path / "shop")
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    command = [sys.executable, "-c", REPLICAS, str(tmp_path / "shop")]
    urls = [server.url.replace("/postgres", f"/race{number}") for number in range(6)]
    server.execute(*(f"CREATE DATABASE race{number}" for number in range(6)))
    completed = subprocess.run(
        command, input="\n".join(urls), capture_output=True, text=True, env=environment, timeout=300
    )
    assert completed.stdout.splitlines() == ["6 6 6 6"] * 6, completed.stdout + completed.stderr
    for url in urls:
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM lorarec_events").fetchone() == (120,)


@pytest.mark.parametrize("schema", [0, 2])
def test_tables_of_an_earlier_lorarec_are_brought_up_to_date(server: PostgresServer, shop: Any, schema: int) -> None:
    """As 0.1 made and filled them, without the number of a schema, and as 0.2.0 did with schema 2."""
    long = "u" * 400
    columns = "INSERT INTO lorarec_events (user_id, item_id, timestamp, event_id) VALUES"
    server.execute(
        "CREATE TABLE lorarec_events (id BIGSERIAL NOT NULL, user_id VARCHAR NOT NULL, item_id VARCHAR NOT NULL, "
        "timestamp BIGINT NOT NULL, event_id VARCHAR, PRIMARY KEY (id), UNIQUE (user_id, event_id))",
        "CREATE INDEX lorarec_events_of_user ON lorarec_events (user_id, timestamp, id)",
        'CREATE TABLE lorarec_source ("only" SERIAL NOT NULL, dataset VARCHAR NOT NULL, PRIMARY KEY ("only"))',
        f"INSERT INTO lorarec_source VALUES (1, '{shop.fingerprint}')",
        *(f"{columns} ('{user}', '{item}', {time}, NULL)" for user, item, time, _ in shop.interactions.rows()),
        f"{columns} ('u03', 'x07', 500, 'kept'), ('{long}', 'x08', 1, '{long}'), ('{long}', 'x09', 2, NULL)",
    )
    if schema == 2:
        server.execute(
            'CREATE TABLE lorarec_schema ("only" SERIAL NOT NULL, version INTEGER NOT NULL, PRIMARY KEY ("only"))',
            "INSERT INTO lorarec_schema VALUES (1, 2)",
            "CREATE TABLE lorarec_probe (moment BIGINT NOT NULL)",
        )
    for _ in range(2):
        histories = Histories(server.url)
        histories.fill(shop)
        histories.check()
        own = shop.interactions.filter(user_id="u03")["item_id"].to_list()
        assert histories.history("u03", 9) == [*own, "x07"]
        assert histories.history(long, 9) == ["x08", "x09"]
        assert histories.append([Event("u03", "x07", 500, "kept"), Event(long, "x08", 1, long)]) == 0
        histories.close()
    assert server.execute("SELECT version FROM lorarec_schema") == [(len(MIGRATIONS),)]
    assert server.execute("SELECT last_id FROM lorarec_source") == [(120,)]
    server.execute("UPDATE lorarec_schema SET version = 99")
    with pytest.raises(LorarecError, match=r"has schema 99, of a later lorarec; .* upgrade lorarec"):
        Histories(server.url).fill(shop)


def test_a_user_without_the_right_to_make_tables(server: PostgresServer, shop: Any) -> None:
    Histories(server.url).fill(shop)
    rights = "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO clerk"
    sequences = "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk"
    server.execute("CREATE ROLE clerk LOGIN", rights, sequences)
    histories = Histories(server.url.replace("lorarec@", "clerk@"))
    histories.fill(shop)
    histories.check()
    assert histories.append([Event("u03", "x29")]) == 1
    histories.close()


def test_a_database_that_may_not_be_written_to_is_not_ready(
    server: PostgresServer, tiny_backbone: Backbone, offline: Any, adapters: Path, play: Any, database_becomes: Any
) -> None:
    service = Service(tiny_backbone, offline.dataset, adapters, server.url)

    async def scenario(client: httpx2.AsyncClient) -> None:
        await database_becomes(client, "ok")
        server.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        service.histories.close()  # the setting is for new connections
        await database_becomes(client, "unusable")
        ranked = {"user_id": "u03", "candidates": ["x01"], "adapter": "general"}
        assert (await client.post("/v1/rank", json=ranked)).status_code == 200
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
        service.histories.close()
        await database_becomes(client, "ok")
        server.execute("ALTER TABLE lorarec_events RENAME TO gone")
        await database_becomes(client, "unusable")
        server.execute("ALTER TABLE gone RENAME TO lorarec_events")
        await database_becomes(client, "ok")
        with psycopg.connect(server.url) as connection:  # a lock that is not given back
            connection.execute("LOCK TABLE lorarec_events")
            began = time.monotonic()
            assert (await client.post("/v1/rank", json=ranked)).status_code == 503
            assert time.monotonic() - began < 2 * CALL_SECONDS
        assert (await client.post("/v1/rank", json=ranked)).status_code == 200

    play(service, scenario)


def test_replicas_outlive_a_server_that_hangs(server: PostgresServer, serve_options: list[str], started: Any) -> None:
    """Two that start together; then PostgreSQL's processes stop, so that connections stay and nothing answers."""
    stored = {"user_id": "new", "candidates": ["x01"]}
    given = {"history": ["x01"], "candidates": ["x02"]}
    with started([*serve_options, "--db", server.url, "--grace", "1"], count=2) as replicas:
        one, other = (httpx2.Client(base_url=replica.url, timeout=60) for replica in replicas)
        assert one.post("/v1/events", json={"events": [{"user_id": "new", "item_id": "x29"}]}).json()["stored"] == 1
        for client in (one, other):
            assert client.post("/v1/rank", json=stored).status_code == 200
            assert client.get("/readyz").status_code == 200
        server.signal(signal.SIGSTOP)
        with ThreadPoolExecutor(40) as threads:
            began = time.monotonic()
            waiting = [
                threads.submit(httpx2.post, f"{replicas[0].url}/v1/rank", json=stored, timeout=60) for _ in range(40)
            ]
            while (health := one.get("/healthz")).status_code == 200:
                asked = time.monotonic()
                assert one.post("/v1/rank", json=given).status_code == 200
                assert one.get("/livez").status_code == 200
                assert time.monotonic() - asked < 1
                assert asked - began < 5
            assert health.json()["database"] == "unreachable"
            assert {future.result().status_code for future in waiting} == {503}
            assert time.monotonic() - began < 2 * CALL_SECONDS
        server.signal(signal.SIGCONT)
        until(lambda: one.get("/readyz").status_code == 200)
        assert one.post("/v1/rank", json=stored).status_code == 200
        server.signal(signal.SIGSTOP)
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(other.post, "/v1/rank", json=stored)
            time.sleep(0.3)
            began = time.monotonic()
            for replica in replicas:
                replica.process.send_signal(signal.SIGTERM)
            for replica in replicas:
                assert replica.process.wait(20) in (-signal.SIGTERM, 128 + signal.SIGTERM)
            assert time.monotonic() - began < 10
            assert asked.exception() is not None or asked.result().status_code >= 500
        for replica in replicas:
            assert replica.log.stat().st_size < 20_000


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, which must come true in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 20
        time.sleep(0.05)

"""The server in a process of its own: where it listens, and how it ends."""

import asyncio
import json
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.serving.histories import Histories
from lorarec.serving.http_config import require_key
from lorarec.serving.server import listen


@pytest.fixture
def options(tiny_backbone: Backbone, shop: Dataset, adapters: Path, tmp_path: Path) -> list[str]:
    """Arguments of `lorarec serve` for the tiny shop."""
    tiny_backbone.model.save_pretrained(tmp_path / "backbone")
    tiny_backbone.tokenizer.save_pretrained(tmp_path / "backbone")
    shop.save(tmp_path / "shop")
    return [str(tmp_path / "shop"), "--adapters", str(adapters), "--backbone", str(tmp_path / "backbone")]


def test_a_service_loads_no_library_that_only_training_and_reports_need() -> None:
    code = """
import sys
import lorarec.serving.server
names = "matplotlib", "sklearn", "scipy.stats", "transformers.training_args", "lorarec.training.run"
print([name for name in names if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_requests_under_way_are_finished_on_sigterm(options: list[str], tmp_path: Path, started: Any) -> None:
    body = {"user_id": "u01", "candidates": ["x01", "x02"], "adapter": {"general": 0.3, "specific": 0.7}}
    with (
        started([*options, "--wait-ms", "4000", "--host", "0.0.0.0"], "long random text") as (server,),
        ThreadPoolExecutor(8) as threads,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        assert client.get("/v1/adapters").status_code == 401
        client.headers["authorization"] = "Bearer long random text"
        event = {"events": [{"user_id": "u01", "item_id": "x29"}]}
        assert client.post("/v1/events", json=event).json()["stored"] == 1
        asked = [threads.submit(client.post, "/v1/rank", json=body) for _ in range(8)]
        while "lorarec_requests_inside 8.0" not in client.get("/metrics").text:
            assert not any(future.done() for future in asked)
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        answers = [future.result() for future in asked]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert all(answer.json() == answers[0].json() for answer in answers)
        assert server.process.wait(30) == -signal.SIGTERM
        with pytest.raises(httpx2.TransportError):
            client.get("/healthz")
    # The event is still there at the next start.
    assert Histories(f"sqlite:///{tmp_path / 'shop.db'}").history("u01", 100)[-1] == "x29"


def test_half_sent_requests_delay_no_end(serve_options: list[str], tmp_path: Path, started: Any) -> None:
    """Also with a long grace, which is for requests that have arrived."""
    head = b"POST /v1/rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    halves = [b"", head, head + b"Content-Length: 1000\r\n\r\n{", get + head + b"Content-Length: 9\r\n\r\n"]
    halves += [get + head, head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
    with started([*serve_options, "--db", str(tmp_path / "h.db"), "--grace", "60"]) as (server,):
        host, _, port = server.url.removeprefix("http://").partition(":")
        connections = [socket.create_connection((host, int(port))) for _ in halves]
        for connection, half in zip(connections, halves, strict=True):
            connection.sendall(half)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while server.process.poll() is None:
            assert time.monotonic() - began < 6
            for connection in connections[2:3]:
                with suppress(OSError):
                    connection.send(b" ")  # a body that trickles in
            time.sleep(0.2)
        for connection in connections:
            connection.close()


def test_faults_are_in_the_log(serve_options: list[str], tmp_path: Path, started: Any) -> None:
    """A database that fails, one that hangs, and an error in the service; titles and ids are not logged."""
    database = tmp_path / "h.db"
    stored = {"user_id": "u01", "candidates": ["x01"]}
    with (
        started([*serve_options, "--db", str(database)]) as (server,),
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        assert client.post("/v1/rank", json=stored).status_code == 200
        database.rename(tmp_path / "gone.db")
        assert client.post("/v1/rank", json=stored).status_code == 503
        assert "WARNING: the database cannot be used: " in server.log.read_text()
        (tmp_path / "gone.db").rename(database)
        with sqlite3.connect(database, isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert client.post("/v1/rank", json=stored).status_code == 503
        other.close()
        assert "database is locked" in server.log.read_text()
        assert "u01" not in server.log.read_text()


def test_options_come_from_a_file_and_the_environment(
    serve_options: list[str], tmp_path: Path, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys of which one is replaced while the process runs."""
    dataset, _, adapters, _, backbone = serve_options
    keys, former, new = tmp_path / "keys.yaml", "former-0123456789", "new-0123456789-abc"
    row = "- {name: NAME, key: KEY, roles: read}\n"
    keys.write_text(row.replace("NAME", "former").replace("KEY", former))
    keys.chmod(0o600)
    options = tmp_path / "serve.yaml"
    options.write_text(
        f"dataset: {dataset}\nadapters: {adapters}\nbackbone: {backbone}\nkeys: nowhere\nhost: 0.0.0.0\n"
    )
    monkeypatch.setenv("LORAREC_SERVE_DB", str(tmp_path / "histories.db"))
    monkeypatch.setenv("LORAREC_SERVE_KEYS", str(keys))
    with (
        started(["--config", str(options)]) as (server,),
        httpx2.Client(base_url=server.url, timeout=60, headers={"authorization": f"Bearer {former}"}) as client,
    ):
        assert (tmp_path / "histories.db").is_file()
        assert client.get("/v1/items").status_code == 200
        event = {"events": [{"user_id": "u01", "item_id": "x29"}]}
        assert "lacks the role 'events'" in client.post("/v1/events", json=event).json()["detail"]
        keys.write_text(row.replace("NAME", "new").replace("KEY", new))
        while client.get("/v1/items").status_code == 200:
            time.sleep(0.1)
        assert client.get("/v1/items", headers={"authorization": f"Bearer {new}"}).status_code == 200
        keys.write_text(row)
        while "roles" not in (logged := server.log.read_text()) and "line 1" not in logged:
            time.sleep(0.1)
        assert client.get("/v1/items", headers={"authorization": f"Bearer {new}"}).status_code == 200
        assert f"keys file {keys}, line 1: key must be" in logged
        assert former not in logged
        assert new not in logged


def test_the_examples_of_the_guide(
    backbone_folder: Path,
    example_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    started: Any,
) -> None:
    """Run the command that starts the service, all curl commands in a shell, and the example of the client."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    guide = (Path(__file__).parents[2] / "docs" / "howto" / "serving.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", guide, re.MULTILINE | re.DOTALL))
    line, *_ = re.findall("^lorarec (serve .*)", code, re.MULTILINE)
    commands = re.findall(r"^curl .*(?:\n +.*)*", code, re.MULTILINE)
    rank, own, recommend, filtered, batch, events, alias, aliased, add, change, withdraw, export, delete = commands
    monkeypatch.chdir(example_folder)
    with started([*shlex.split(line)[1:], "--backbone", str(backbone_folder)]) as (server,):

        def ask(example: str, expected: str = "200 application/json") -> Any:
            command = example.replace("localhost:8000", server.url.removeprefix("http://"))
            flags = "--silent --show-error --write-out '\\n%{http_code} %{content_type}'"
            shown = subprocess.check_output(f"{command} {flags}", shell=True, text=True)
            body, _, status = shown.rpartition("\n")
            assert status.strip() == expected, shown
            return json.loads(body) if body.strip() else None

        mixed, routed = ask(rank), ask(own)
        assert {item["item_id"] for item in mixed["ranking"]} == {"i1", "i2"}
        assert (mixed["mixture"], mixed["personal"]) == ({"general": 0.3, "shop": 0.7}, {})
        assert {item["item_id"] for item in routed["ranking"]} == {"i1", "i2"}
        ((_, weights),) = routed["personal"].items()
        assert (weights["routed"], weights["parts"]) == (True, ["general", "shop"])
        assert len(ask(recommend)["ranking"]) == 5
        assert {item["item_id"] for item in ask(filtered)["ranking"]} == {"i1", "i4", "i7"}
        responses = ask(batch)["responses"]
        assert [(each["status"], len(each["body"]["ranking"])) for each in responses] == [(200, 2), (200, 5)]
        assert ask(alias) == {"alias": "prod", "adapter": "shop"}
        assert ask(aliased)["mixture"] == {"shop": 1.0}
        assert ask(add) == {"added": 1}
        assert ask(change)["columns"] == {"price": 14, "region": "DE", "brand": None, "in_stock": None}
        assert ask(withdraw, "204 application/json") is None
        assert ask(events) == {"stored": 1, "known": 0}
        assert ask(rank) != mixed
        assert ask(own)["personal"] != routed["personal"]
        assert ask(events) == {"stored": 0, "known": 1}
        (python,) = re.findall(r"^```python\n(from lorarec import Client.*?)^```", guide, re.MULTILINE | re.DOTALL)
        exec(python.replace("http://localhost:8000", server.url))
        best, refused = capsys.readouterr().out.splitlines()
        assert re.fullmatch(r"\w+ \w+ 0\.\d+", best)
        assert refused.startswith("404 user_id: user 'nobody' has no history")
        stored = ask(export)["events"]
        assert (len(stored), stored[-1]["item_id"], stored[-1]["event_id"]) == (7, "i3", "click-1")
        assert ask(delete) == {"deleted": 7, "answers": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", "0.0.0.0"], "error: --host 0.0.0.0 lets other machines in: set LORAREC_API_KEY"),
        (["--load", "nothing"], "error: no adapter 'nothing' in the adapters folder: it has general"),
        (["--db", "nonsense://x"], "error: option --db is not a usable database URL"),
        (["--db", "/no/such/folder/h.db"], "error: database sqlite:////no/such/folder/h.db cannot be used"),
    ],
)
def test_bad_options_are_reported_in_one_line(
    options: list[str],
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[..., str],
) -> None:
    monkeypatch.delenv("LORAREC_API_KEY", raising=False)
    assert refusal("serve", *options, "--port", "0", *words).startswith(message)


def test_local_hosts_need_no_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        require_key(host, None)
    require_key("0.0.0.0", "long random text")
    for host in ("0.0.0.0", "::", "192.168.0.1", "shop.example", "127.0.0.1.evil.example", ""):
        with pytest.raises(LorarecError, match="set LORAREC_API_KEY"):
            require_key(host, None)
    with pytest.raises(LorarecError, match="LORAREC_API_KEY is empty"):
        require_key("127.0.0.1", " ")


def test_small_answers_are_sent_at_once() -> None:
    no_delay: list[int] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        no_delay.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> None:
        with listen("127.0.0.1", 0) as bound:
            async with await asyncio.start_server(connected, sock=bound):
                reader, writer = await asyncio.open_connection(*bound.getsockname())
                await reader.read()
                writer.close()

    asyncio.run(connect())
    assert no_delay[0]


def test_taken_port_is_reported() -> None:
    bound = listen("127.0.0.1", 0)
    bound.listen()
    with pytest.raises(LorarecError, match="change option port"):
        listen("127.0.0.1", bound.getsockname()[1])
    bound.close()

"""The line of JSON for each request, the durations of stages, and the dashboard over the metrics."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lorarec.serving import logs
from lorarec.serving.service import Service

DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana_dashboard.json"
STORED = {"user_id": "u01", "candidates": ["x02", {"title": "made up"}], "adapter": "general"}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged of requests."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logs.requests, "handlers", [handler])
    logs.requests.setLevel(logging.INFO)
    yield stream
    logs.requests.setLevel(logging.CRITICAL)


def test_each_request_is_a_line(service: Service, play: Any, lines: io.StringIO) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        headers = {"authorization": "Bearer secret"}
        ranked = await client.post("/v1/rank", json=STORED, headers=headers | {"x-request-id": "click-7"})
        assert ranked.status_code == 200
        assert (await client.get("/v1/users/u01", headers=headers)).status_code == 200
        assert (await client.request("MADEUP", "/made-up", headers=headers)).status_code == 404
        assert (await client.post("/v1/rank", json=STORED)).status_code == 401

    play(service, scenario, "secret")
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in logged] == [
        ("POST", "/v1/rank", 200),
        ("GET", "/v1/users/{user_id:path}", 200),
        ("other", "other", 404),
        ("POST", "/v1/rank", 401),
    ]
    assert logged[0]["request_id"] == "click-7"
    assert len({line["request_id"] for line in logged}) == len(logged)
    stages = [{name for name in line if name.endswith("_seconds")} for line in logged]
    ranked = {"database_seconds", "prompt_seconds", "queue_seconds", "model_seconds"}
    assert stages == [ranked, {"database_seconds"}, set(), set()]
    assert 0 < sum(logged[0][stage] for stage in ranked) <= logged[0]["seconds"]
    assert not re.search("u01|x02|made|secret|MADEUP", lines.getvalue())


def test_nothing_is_logged_by_default(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> None:
        await client.get("/livez")

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logs.requests.addHandler(handler)
    play(service, scenario)
    logs.requests.removeHandler(handler)
    assert stream.getvalue() == ""


def test_the_dashboard_reads_metrics_that_there_are(service: Service, play: Any) -> None:
    async def scenario(client: httpx2.AsyncClient) -> set[str]:
        assert (await client.post("/v1/rank", json=STORED)).status_code == 200
        metrics = (await client.get("/metrics")).text
        return set(re.findall(r"^lorarec_\w+", metrics, re.MULTILINE))

    exported = play(service, scenario)
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"lorarec_\w+", query)}
    assert used
    assert used <= exported
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])

"""Responses over a real socket, and schemathesis against the OpenAPI schema."""

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.serving.server import Server, listen
from lorarec.serving.service import Service


@pytest.fixture
def url(backbone_folder: Path, example_folder: Path) -> Iterator[str]:
    """URL of a service with the key `secret`, which knows the ids in the examples of the OpenAPI schema."""
    data, adapters = Dataset.load(example_folder / "data" / "shop"), example_folder / "adapters"
    database = f"sqlite:///{example_folder / 'histories.db'}"
    service = Service(Backbone.from_pretrained(backbone_folder), data, adapters, database)
    bound = listen("127.0.0.1", 0)
    bound.listen()
    server = Server(service, "secret")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_a_body_that_is_refused_unread_gets_its_answer(url: str) -> None:
    """Also where the client sends all of it before it reads, and most is still to come."""
    for headers, status in (({}, 401), ({"authorization": "Bearer secret"}, 413)):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        connection.request("POST", "/v1/rank", b" " * 30_000_000, headers)
        assert connection.getresponse().status == status
        connection.close()


#: Statuses of schema-valid requests for what does not exist, such as an unknown item, and of bodies of over a mebibyte.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 422, 429]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]
"""


def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--seed", "1", "--no-color"]
    command += ["--header", "Authorization: Bearer secret", "--checks", "all", "--warnings", "off"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "4", "--generation-database", "none"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, (found.stdout + found.stderr)[-5000:]
    # The description's own examples are right requests, so that not everything was refused.
    metrics = httpx2.get(f"{url}/metrics", headers={"authorization": "Bearer secret"}).text
    for path in (
        "v1/rank",
        "v1/recommend",
        "v1/explain",
        "v1/events",
        "v1/adapters",
        "v1/rerank",
        "v2/rerank",
        "rerank",
        "v1/batch",
        "v1/aliases",
        "v1/items",
    ):
        answered = rf'lorarec_requests_total{{method="POST",path="/{path}",status="200"}} [1-9]'
        assert re.search(answered, metrics), metrics

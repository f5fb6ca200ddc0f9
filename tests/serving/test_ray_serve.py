"""The service on Ray Serve: two replicas behind one address."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import psutil
import pytest
from pydantic import ValidationError

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.data.cooccurrence import dataset_cooccurrence
from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from lorarec.ranking import Ranker
from lorarec.serving.server import listen

serve = pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'lorarec[ray]'")

from lorarec.serving.ray_serve import ServeArguments, build  # noqa: E402

CANDIDATES = ["i01", "i05", "i09"]
USERS = [f"u{number}" for number in range(8)]
EVIDENT = {"readout": "verdict", "options": {"evidence": True, "max_history": 4}}


@dataclass
class Shop:
    """A service with two replicas.

    Attributes:
        url: Its address.
        expected: Scores of the candidates by adapter and user, as a Ranker gives them offline.
    """

    url: str
    expected: dict[str, dict[str, np.ndarray]]

    def rank(self, adapter: str, user: str) -> httpx2.Response:
        body = {"user_id": user, "candidates": CANDIDATES, "adapter": adapter}
        return httpx2.post(f"{self.url}/v1/rank", json=body, timeout=60)

    def check(self, response: httpx2.Response, adapter: str, user: str) -> None:
        assert response.status_code == 200, response.text
        found = {item["candidate"]: item["score"] for item in response.json()["ranking"]}
        np.testing.assert_allclose([found[0], found[1], found[2]], self.expected[adapter][user], atol=1e-4)

    def loaded(self) -> set[str]:
        return {each["name"] for each in httpx2.get(f"{self.url}/v1/adapters", timeout=60).json()["loaded"]}


def replicas() -> list[psutil.Process]:
    """Processes of the replicas."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and "ServeReplica:" in process.cmdline()[0]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture(scope="module")
def shop(
    ray_cluster: None,
    backbone_folder: Path,
    write_adapter: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("ray")
    backbone = Backbone.from_pretrained(backbone_folder)
    rows = [(user, f"i{(k * 3 + place) % 10:02}", k) for place, user in enumerate(USERS) for k in range(6)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": [f"i{k:02}" for k in range(10)], "title": [f"lamp {k}" for k in range(10)]})
    data = Dataset.from_frames("shop", interactions, items).save(folder / "shop")
    for seed, name in enumerate(("general", "specific")):
        write_adapter(backbone.model, folder / "adapters" / name, seed, EVIDENT)
    histories = [interactions.filter(user_id=user)["item_id"].to_list() for user in USERS]
    cases = pl.DataFrame({"user_id": USERS, "history": histories, "candidates": [CANDIDATES] * len(USERS)})
    expected = {}
    for name in ("general", "specific"):
        with Ranker(backbone, read_adapter(folder / "adapters" / name)) as ranker:
            scores = ranker.score_cases(cases, data.titles, dataset_cooccurrence(data))
        expected[name] = dict(zip(USERS, scores, strict=True))
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
    arguments = {
        "dataset": str(folder / "shop"),
        "adapters": str(folder / "adapters"),
        "load": "general",
        "backbone": str(backbone_folder),
        "num_replicas": 2,
    }
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(ServeArguments.model_validate(arguments)), name="shop")
    yield Shop(f"http://127.0.0.1:{port}", expected)
    serve.shutdown()


def test_both_replicas_answer_as_offline_and_load_an_adapter(shop: Shop) -> None:
    assert len(replicas()) == 2
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4):
            answers = list(threads.map(lambda user: shop.rank("general", user), USERS))
            for user, answer in zip(USERS, answers, strict=True):
                shop.check(answer, "general", user)
    assert shop.rank("specific", "u1").status_code == 404
    assert httpx2.post(f"{shop.url}/v1/adapters", json={"name": "specific"}, timeout=60).status_code == 200
    began, in_a_row = time.monotonic(), 0
    while in_a_row < 20:
        assert time.monotonic() - began < 20
        in_a_row = in_a_row + 1 if shop.loaded() == {"general", "specific"} else 0
    with ThreadPoolExecutor(8) as threads:
        for user, answer in zip(USERS, threads.map(lambda user: shop.rank("specific", user), USERS), strict=True):
            shop.check(answer, "specific", user)


def test_a_killed_replica_is_replaced_and_gives_no_wrong_answer(shop: Shop) -> None:
    killed, _ = replicas()
    done = threading.Event()
    failures: list[httpx2.Response] = []

    def ask(user: str) -> int:
        count = 0
        while not done.is_set():
            response = shop.rank("general", user)
            if response.status_code == 200:
                shop.check(response, "general", user)
                count += 1
            else:
                failures.append(response)
        return count

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, user) for user in USERS]
        time.sleep(1)
        os.kill(killed.pid, signal.SIGKILL)
        time.sleep(3)
        done.set()
        assert sum(each.result() for each in asked) > 0
    # Each client had at most one request in the replica that was killed.
    assert len(failures) <= len(USERS)
    assert {each.status_code for each in failures} <= {500, 503}, [each.text for each in failures]


def test_arguments_are_checked() -> None:
    for wrong in ({}, {"dataset": "shop", "adapter": "x"}, {"dataset": "shop", "config": {"pool": 0}}):
        with pytest.raises(ValidationError):
            ServeArguments.model_validate(wrong)
    with pytest.raises(LorarecError, match="nothing to serve"):
        ServeArguments(dataset="shop").load_service()


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shop", "adapters", "games"):
        (tmp_path / name).mkdir()
    given: dict[str, Any] = {"dataset": "shop", "adapters": ["adapters", "old=games", "me/x", "y=me/x"], "db": "h.db"}
    resolved = ServeArguments.model_validate(given).resolved()
    assert resolved.dataset == str(tmp_path / "shop")
    assert resolved.adapters == [f"{tmp_path}/adapters", f"old={tmp_path}/games", "me/x", "y=me/x"]
    assert resolved.db == str(tmp_path / "h.db")
    assert (resolved.index, resolved.fusion, resolved.keys) == (None, None, None)
    url = ServeArguments(dataset="hub:me/shop", db="postgresql://db/shop").resolved()
    assert (url.dataset, url.db) == ("hub:me/shop", "postgresql://db/shop")

"""The log of answers: whole files, bounded memory, and the deletion of users."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest

import lorarec
from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.evaluation import ANSWER_SCHEMA, read_answers
from lorarec.evaluation.logged_answers import answer_files
from lorarec.serving.answer_log import AnswerLog, LoggedAnswer
from lorarec.serving.config import ServiceConfig
from lorarec.serving.experiment import Experiment
from lorarec.serving.metrics import Metrics
from lorarec.serving.service import Service
from tests.command_line import run

START = datetime(2026, 11, 26, tzinfo=UTC)


def answer(number: int, user: str | None = "u1", **fields: Any) -> LoggedAnswer:
    made = LoggedAnswer(
        request_id=f"r{number}",
        time=START + timedelta(seconds=number),
        user_id=user,
        experiment="homepage",
        variant="control",
        propensity=0.5,
        shadow=False,
        versions=[{"name": "shop", "version": "7d0e"}],
        item_ids=["x1", None],
        scores=[0.5, -1.0],
        probabilities=[0.8, 0.2],
        candidates=2,
    )
    return replace(made, **fields)


@pytest.fixture
def make_log(tmp_path: Path) -> Iterator[Callable[..., AnswerLog]]:
    """Make logs in one folder; they are closed at the end."""
    logs: list[AnswerLog] = []

    def make(**options: Any) -> AnswerLog:
        logs.append(AnswerLog(tmp_path / "log", Metrics(), **options))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


def counted(log: AnswerLog, name: str) -> float:
    return log._metrics.registry.get_sample_value(f"lorarec_{name}_answers_total") or 0.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_are_read_as_they_were_logged(make_log: Callable[..., AnswerLog]) -> None:
    log = make_log()
    empty: dict[str, Any] = {"item_ids": [], "scores": [], "probabilities": [], "versions": [], "candidates": 0}
    answers = [answer(0), answer(1, None, variant=None, experiment=None, propensity=None), answer(2, **empty)]
    for each in reversed(answers):
        log.add(each)
    log.close()
    read = read_answers(log.folder)
    assert read.schema == ANSWER_SCHEMA
    assert read.to_dicts() == [asdict(each) for each in answers]
    assert counted(log, "logged") == 3


def test_files_are_written_after_a_number_of_rows_or_seconds(make_log: Callable[..., AnswerLog]) -> None:
    by_rows = make_log(rows=10, seconds=3600)
    for number in range(9):
        by_rows.add(answer(number))
    time.sleep(0.1)
    assert answer_files(by_rows.folder) == []
    by_rows.add(answer(9))
    wait_for(lambda: len(answer_files(by_rows.folder)) == 1)
    by_time = make_log(rows=1000, seconds=0.05)
    by_time.add(answer(10))
    wait_for(lambda: read_answers(by_rows.folder).height == 11)


def test_answers_beyond_the_capacity_are_dropped_and_counted(make_log: Callable[..., AnswerLog]) -> None:
    log = make_log(rows=1000, seconds=3600, capacity=5)
    for number in range(8):
        log.add(answer(number))
    assert counted(log, "dropped") == 3
    log.close()
    assert read_answers(log.folder)["request_id"].to_list() == [f"r{number}" for number in range(5)]


def test_answers_wait_while_the_disk_is_full(
    make_log: Callable[..., AnswerLog], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log(rows=1, seconds=0.05)

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "write_parquet", refuse)
        log.add(answer(0))
        wait_for(lambda: "answers cannot be written" in caplog.text)
    wait_for(lambda: bool(answer_files(log.folder)))
    assert read_answers(log.folder).height == 1


def test_adding_does_not_wait_for_the_disk(make_log: Callable[..., AnswerLog], monkeypatch: pytest.MonkeyPatch) -> None:
    log, release = make_log(rows=1, seconds=3600), threading.Event()
    write = pl.DataFrame.write_parquet
    monkeypatch.setattr(pl.DataFrame, "write_parquet", lambda *given: release.wait(60) and write(*given))
    began = time.monotonic()
    for number in range(1000):
        log.add(answer(number))
    assert time.monotonic() - began < 5
    release.set()
    log.close()
    assert read_answers(log.folder).height == 1000


@pytest.mark.parametrize("repetition", range(2))
def test_a_kill_leaves_whole_files_only(tmp_path: Path, repetition: int) -> None:
    code = f"""
from tests.serving.test_answer_log import *
log = AnswerLog({str(tmp_path / "log")!r}, Metrics(), rows=20, seconds=0.01)
print("ready", flush=True)
number = 0
while True:
    log.add(answer(number))
    number += 1
    time.sleep(0.0002)
"""
    root = Path(lorarec.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    wait_for(lambda: len(answer_files(tmp_path / "log")) >= 3 + repetition)
    process.send_signal(signal.SIGKILL)
    process.wait()
    read = read_answers(tmp_path / "log")
    # The answers in the files are the first ones, without a gap.
    assert read["request_id"].to_list() == [f"r{number}" for number in range(read.height)]
    AnswerLog(tmp_path / "log", Metrics()).close()
    assert [path.name for path in (tmp_path / "log").iterdir() if path.suffix == ".tmp"] == []


def test_a_deletion_reaches_files_and_what_other_replicas_have_not_written(make_log: Callable[..., AnswerLog]) -> None:
    first, second = make_log(seconds=3600), make_log(seconds=3600)
    for number, user in enumerate(["a", "b", "a", None]):
        first.add(answer(number, user))
    first.flush()
    first.add(answer(4, "a"))
    first.flush()  # a file with no other user
    for number, user in enumerate(["a", "b"], 5):
        second.add(answer(number, user))
    assert first.delete("a") == 3
    assert first.delete("nobody") == 0
    second.add(answer(7, "a"))  # its request arrived before the deletion
    second.add(answer(8, "a", time=datetime.now(UTC)))
    second.flush()
    read = read_answers(first.folder)
    assert read["user_id"].to_list() == ["b", None, "b", "a"]
    assert read["request_id"].to_list()[-1] == "r8"
    assert len(answer_files(first.folder)) == 2
    assert first.answers_of("b")["request_id"].to_list() == ["r1", "r6"]
    assert first.delete("a") == 1


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LorarecError, match=r"answer_log .*file cannot be written to"):
        AnswerLog(tmp_path / "file", Metrics())
    with pytest.raises(LorarecError, match="has no files of answers"):
        read_answers(tmp_path)
    (tmp_path / "answers-1.parquet").write_text("no parquet")
    with pytest.raises(LorarecError, match=r"answers-1.parquet is not a readable Parquet file"):
        read_answers(tmp_path)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "answers-1.parquet")
    with pytest.raises(LorarecError, match="does not have the columns of logged answers"):
        read_answers(tmp_path)


def test_the_service_logs_its_answers_and_deletes_those_of_a_user(
    tiny_backbone: Backbone, offline: Any, adapters: Path, tmp_path: Path, play: Any
) -> None:
    names = {"control": "general", "new": "specific"}
    variants = [{"name": name, "share": 0.5, "adapter": adapter} for name, adapter in names.items()]
    experiment = Experiment.model_validate({"name": "homepage", "variants": variants})
    service = Service(
        tiny_backbone,
        offline.dataset,
        adapters,
        f"sqlite:///{tmp_path / 'histories.db'}",
        ServiceConfig(wait_ms=1),
        experiment=experiment,
        answer_log=tmp_path / "log",
    )
    answers: list[dict[str, Any]] = []

    async def scenario(client: httpx2.AsyncClient) -> None:
        headers = {"x-request-id": "first"}
        for path, body in (
            ("rank", {"user_id": "u01", "candidates": ["x02", {"title": "made up"}]}),
            ("recommend", {"user_id": "u02", "top": 3}),
            ("rank", {"history": ["x01"], "candidates": ["x02"], "assignment_id": "session"}),
            ("rank", {"history": ["x01"], "candidates": ["x02"]}),
            ("rank", {"user_id": "u01", "candidates": ["x02"], "adapter": "general"}),
        ):
            answers.append((await client.post(f"/v1/{path}", json=body, headers=headers)).json())
            headers = {}
        assert (await client.post("/v1/explain", json={"user_id": "u02"})).status_code == 200
        exported = (await client.get("/v1/users/u01")).json()["answers"]
        assert [each["item_ids"] for each in exported] == [
            [item["item_id"] for item in answers[0]["ranking"]],
            ["x02"],
        ]
        assert exported[0]["request_id"] == "first"
        # All that the files hold of the user, besides the id itself.
        assert {"user_id", *exported[0]} == {"user_id", *ANSWER_SCHEMA.names()}
        assert exported[0]["versions"] == [{"name": n, "version": v} for n, v in answers[0]["versions"].items()]
        assert exported[0]["candidates"] == 2
        assert (await client.delete("/v1/users/u02")).json() == {"deleted": 6, "answers": 1}
        assert (await client.delete("/v1/users/session")).json() == {"deleted": 0, "answers": 1}
        assert (await client.delete("/v1/users/session")).status_code == 404
        answers.append((await client.post("/v1/recommend", json={"user_id": "u03", "top": 3})).json())

    play(service, scenario)  # answers that wait are written when the service stops
    read = read_answers(tmp_path / "log").to_dicts()
    assert [row["user_id"] for row in read] == ["u01", None, "u01", "u03"]
    first, nobody, named, last = read
    assert first["item_ids"] == [item["item_id"] for item in answers[0]["ranking"]]
    assert first["scores"] == [item["score"] for item in answers[0]["ranking"]]
    np.testing.assert_allclose(sum(first["probabilities"]), 1, atol=1e-6)
    assert (first["variant"], first["propensity"]) == (experiment.assign("u01").name, 0.5)
    adapter = names[first["variant"]]
    assert first["versions"] == [{"name": adapter, "version": offline.adapters[adapter].fingerprint}]
    assert (nobody["variant"], nobody["propensity"], nobody["experiment"]) == ("control", 1.0, "homepage")
    assert (named["variant"], named["propensity"], named["experiment"]) == (None, None, None)
    assert (len(last["item_ids"]), last["candidates"] > 3) == (3, True)


def test_the_command_serves_an_experiment_whose_log_is_evaluated(
    serve_options: list[str], started: Any, tmp_path: Path
) -> None:
    variants = [{"name": name, "share": 0.5, "adapter": each} for name, each in (("a", "general"), ("b", {}))]
    (tmp_path / "variants.yaml").write_text(json.dumps({"name": "homepage", "variants": variants}))
    log, database = tmp_path / "log", tmp_path / "shop.db"
    options = ["--variants", tmp_path / "variants.yaml", "--answer-log", log, "--db", database]
    shown: dict[str, list[str]] = {"a": [], "b": []}
    with started([*serve_options, *map(str, options)]) as [replica], httpx2.Client(base_url=replica.url) as client:
        for user in (f"u{k:02}" for k in range(12)):
            answer = client.post("/v1/recommend", json={"user_id": user, "top": 3}).json()
            shown[answer["variant"]].append(user)
            best = {"user_id": user, "item_id": answer["ranking"][0]["item_id"]}
            if answer["variant"] == "a":
                client.post("/v1/events", json={"events": [best]})
        replica.process.terminate()
        assert replica.process.wait(60) in (0, -signal.SIGTERM)
    found = json.loads(run("evaluate", "--log", log, "--db", database, "--json").stdout)["variants"]
    assert {name: each["users"] for name, each in found.items()} == {name: len(users) for name, users in shown.items()}
    assert {name: each["metrics"]["hr@1"]["mean"] for name, each in found.items()} == {"a": 1, "b": 0}

"""`lorarec evaluate --log` compares the variants of logged answers."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.evaluation import ANSWER_SCHEMA
from lorarec.serving.histories import Event, Histories
from tests.command_line import run

START = datetime(2026, 11, 26, tzinfo=UTC)
LONG = "long " * 80


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder of answers of two variants to 60 users, one of whom has an id that databases store as a hash."""
    rng, rows = np.random.default_rng(0), []
    for number in range(60):
        rows.append(
            {
                "request_id": None,
                "time": START + timedelta(seconds=10 * number),
                "user_id": LONG if number == 0 else f"u{number}",
                "experiment": "homepage",
                "variant": "b" if number % 3 == 0 else "a",
                "propensity": 1 / 3 if number % 3 == 0 else 2 / 3,
                "shadow": False,
                "versions": [],
                "item_ids": rng.permutation(["x1", "x2", "x3"]).tolist(),
                "scores": [0.0] * 3,
                "probabilities": [0.0] * 3,
                "candidates": 3,
            }
        )
    (tmp_path / "log").mkdir()
    for part in range(2):
        frame = pl.DataFrame(rows[part::2], schema=ANSWER_SCHEMA)
        frame.write_parquet(tmp_path / "log" / f"answers-{part}.parquet")
    return tmp_path / "log"


def chosen() -> list[tuple[str, str, int]]:
    """Every second user chooses x1, five seconds after the answer."""
    first = int(START.timestamp())
    users = [LONG if number == 0 else f"u{number}" for number in range(0, 60, 2)]
    return [(user, "x1", first + 20 * place + 5) for place, user in enumerate(users)]


def test_events_of_a_file_and_of_the_database_give_the_same_report(log: Path, tmp_path: Path) -> None:
    events = pl.DataFrame(chosen(), schema=["user_id", "item_id", "timestamp"], orient="row")
    events.write_parquet(tmp_path / "events.parquet")
    interactions = pl.DataFrame({"user_id": ["u1"], "item_id": ["x1"], "timestamp": [5]})
    items = pl.DataFrame({"item_id": ["x1", "x2", "x3"], "title": ["a", "b", "c"]})
    histories = Histories(f"sqlite:///{tmp_path / 'shop.db'}")
    histories.fill(Dataset.from_frames("shop", interactions, items))
    histories.append([Event(user, item, time) for user, item, time in chosen()])
    histories.close()
    out = tmp_path / "report"
    words = ["evaluate", "--log", str(log), "--window", "60", "--json"]
    by_file = run(*words, "--events", str(tmp_path / "events.parquet"), "--out", str(out))
    by_database = run(*words, "--db", str(tmp_path / "shop.db"))
    found = json.loads(by_file.stdout)
    assert json.loads(by_database.stdout) == found
    assert {name: (each["users"], each["answers"]) for name, each in found["variants"].items()} == {
        "a": (40, 40),
        "b": (20, 20),
    }
    assert (found["compare_with"], found["window"]) == ("a", 60)
    for variant in found["variants"].values():
        assert variant["metrics"]["hr@3"]["mean"] == 0.5
        assert variant["ips"]["hr@3"]["low"] <= variant["ips"]["hr@3"]["mean"]
    assert json.loads((out / "metrics.json").read_text()) == found
    report = (out / "report.md").read_text()
    for heading in ("# Experiment homepage", "## Differences to a", "## If one variant had answered all requests"):
        assert heading in report
    shown = run(*words[:-1], "--events", str(tmp_path / "events.parquet"), "--compare", "b").stdout
    assert "differs from b" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is nothing to evaluate: give a dataset folder, or --log"),
        (["--log", "log"], "the events of the users come from one place: give either option --db or option --events"),
        (["--log", "log", "--db", "a", "--events", "b"], "give either option --db or option --events"),
        (["data", "--events", "b"], "option --events is for logged answers: give option --log"),
        (["data", "--log", "log", "--db", "a"], "--log compares answers of a service: leave out the dataset"),
        (["--log", "none", "--db", "a"], "none has no files of answers: name a folder"),
        (["--log", "log", "--db", "none.db"], "none.db does not exist: give the one of the service"),
        (["--log", "log", "--events", "none"], "none is missing: give a Parquet file"),
        (["--log", "log", "--events", "b", "--window", "0"], "--window must be positive"),
        (["--log", "log", "--events", "b", "--window", "inf"], "--window must be a finite number"),
        (["--log", "log", "--events", "b", "--window", "1e10"], "--window must be at most 3155760000 seconds"),
        (["--log", "log", "--events", "b", "--out", "log"], "log exists already"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    log: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(log.parent)
    with pytest.raises(LorarecError) as refused:
        run("evaluate", *words)
    assert message in str(refused.value)

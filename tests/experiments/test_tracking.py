"""Experiments that report their rows to trackers, all offline."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorarec.experiments import read_experiment, run_experiment, run_recipe
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.job import run_job
from lorarec.experiments.tracking import report_run
from lorarec.io.artefacts import read_json
from lorarec.recommenders import BASELINES
from lorarec.training import TrackingConfig
from tests.tracker_readers import INSTALLED, Run, common_name, keep_offline, runs

QUICK = {"epochs": 2, "hidden_size": 4, "batch_size": 64}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that all trackers write to."""
    keep_offline(monkeypatch, tmp_path / "trackers")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class ThisProcess:
    """Workers that do one job after the other in this process."""

    count = threads = 1

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        # The first argument after those of the job is the number of threads, the last one shows bars.
        recipe, out, job, _, progress = arguments
        run_job(recipe, ExperimentData.load(recipe), out, job, progress)
        return None


def runs_by_name(tracker: str, home: Path, out: Path) -> dict[str, Run]:
    """The runs of an experiment by the names of their rows."""
    if tracker == "tensorboard":
        return {path.name: runs(tracker, path)[0] for path in (out / "tracking").iterdir()}
    return {re.sub("-[0-9a-f]{6}$", "", run.name): run for run in runs(tracker, home / "trackers")}


def test_every_row_and_seed_is_a_run_with_its_options_and_metrics(
    write_recipe: Callable[..., Path], home: Path
) -> None:
    recipe = read_experiment(write_recipe(rows={"bpr-mf": {"options": QUICK}}, seeds=[1, 2]))
    out, tracking = home / "circle-table", TrackingConfig(report_to=INSTALLED, project="circles")
    table = run_experiment(recipe, out, workers=ThisProcess(), tracking=tracking)
    done = [*(f"{name}-seed1" for name in BASELINES), "bpr-mf-seed1", "bpr-mf-seed2"]
    assert sorted(path.name for path in (out / "tracking").iterdir()) == sorted([*done, "table"])
    warm = table.evaluation.settings["warm"].rows
    for tracker in INSTALLED:
        found = runs_by_name(tracker, home, out)
        assert found.keys() == {*done, "table"}, tracker
        for row in (*BASELINES, "bpr-mf"):
            for metric in ("ndcg@1", "ndcg@10", "mrr"):
                own = [run.last(f"test_warm_{common_name(metric)}") for name, run in found.items() if row in name]
                assert np.mean(own) == pytest.approx(warm[row].metrics[metric].mean, rel=1e-6), (tracker, row)
        options = found["bpr-mf-seed2"].options
        shown = {"row": "bpr-mf", "seed": "2", "hidden_size": "4", "dataset": "circle", "experiment": "circle-table"}
        assert {name: str(options[name]) for name in shown} == shown
        assert found["table"].pictures == ["ndcg"], tracker


def test_rows_are_reported_once_and_again_after_a_change(write_recipe: Callable[..., Path], home: Path) -> None:
    def run(tracker: str) -> None:
        run_recipe(path, out, workers=ThisProcess(), tracking=TrackingConfig(tracker))

    path, out = write_recipe(rows={"bpr-mf": {"options": QUICK}}), home / "out"
    run("none")
    assert not (out / "tracking").exists()
    run("tensorboard")
    first = read_json(out / "tracking" / "bpr-mf-seed1" / "reported.json")
    written = {path: path.stat().st_mtime_ns for path in (out / "tracking").rglob("events*")}
    run("tensorboard")
    kept = {path: path.stat().st_mtime_ns for path in (out / "tracking").rglob("events*") if path in written}
    unchanged = {path: written[path] for path in written if "table" not in path.parts}
    assert {path: kept[path] for path in unchanged} == unchanged
    write_recipe(rows={"bpr-mf": {"options": QUICK | {"epochs": 1}}})
    run("tensorboard")
    assert read_json(out / "tracking" / "bpr-mf-seed1" / "reported.json") != first
    assert len(list((out / "tracking" / "bpr-mf-seed1").rglob("events*"))) == 1
    assert runs_by_name("tensorboard", home, out)["bpr-mf-seed1"].options["epochs"] == 1


def test_a_tracker_is_added_later(home: Path) -> None:
    report_run(TrackingConfig("tensorboard"), home, "row", {"r": 8}, {"test_auc": 0.5})
    report_run(TrackingConfig(INSTALLED), home, "row", {"r": 8}, {"test_auc": 0.5})
    assert set(read_json(home / "tracking" / "row" / "reported.json")) == set(INSTALLED)
    for tracker in INSTALLED:
        assert runs_by_name(tracker, home, home)["row"].figures == {"test_auc": {0: 0.5}}, tracker

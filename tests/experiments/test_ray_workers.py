"""Rows on a real Ray cluster: the ranks of one process, and errors in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lorarec[ray]'")

from lorarec.cli.entry import app
from lorarec.errors import LorarecError
from lorarec.experiments import Recipe, read_experiment
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.job import Job, run_job
from lorarec.experiments.ray_workers import RayWorkers
from lorarec.experiments.workers import STOPPED
from lorarec.io.artefacts import read_json

QUICK = {"epochs": 2, "hidden_size": 8, "batch_size": 64, "learning_rate": 2e-2}


def _ranks(recipe: Recipe, out: Path) -> pl.DataFrame:
    """Return the ranks of the first row, fitted in this process."""
    job = Job(next(iter(recipe.rows)), 1)
    (out / "rows").mkdir(parents=True)
    run_job(recipe, ExperimentData.load(recipe), out, job, progress=False)
    return pl.read_parquet(out / "rows" / f"{job.name}.parquet")


@pytest.mark.usefixtures("ray_cluster")
def test_tasks_rank_as_one_process_does_and_one_that_fails_takes_no_other_along(
    write_recipe: Callable[..., Path], dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, Any] = {
        "bpr-mf": {"options": QUICK},
        "broken": {"system": "sasrec", "options": {"epochs": 1, "learning_rate": 1e30}},
    }
    # Paths of a recipe are relative to where the command is started, also in a task.
    monkeypatch.chdir(dataset_folder.parent)
    path = write_recipe(dataset=dataset_folder.name, rows=rows)
    result = CliRunner().invoke(
        app, ["experiment", str(path), "--out", str(tmp_path / "out"), "--executor", "ray", "--workers", "2"]
    )
    assert result.exit_code == 1
    assert "broken-seed1: failed: next-item model: the training diverged, its scores are not finite" in result.output
    found = pl.read_parquet(tmp_path / "out" / "rows" / "bpr-mf-seed1.parquet")
    assert_frame_equal(found, _ranks(read_experiment(path), tmp_path / "here"))
    assert read_json(tmp_path / "out" / "rows" / "bpr-mf-seed1.json")["peak_mib"] > 0


@pytest.mark.usefixtures("ray_cluster")
def test_too_many_workers_are_refused() -> None:
    with pytest.raises(LorarecError, match="workers=1000: the cluster has room for"):
        RayWorkers(1000)


def test_nothing_is_started_after_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of `run_rows` may ask for its job between the interruption and the end of the others."""
    monkeypatch.setattr("lorarec.experiments.ray_workers.share_each", lambda count: (1, 0))
    workers = RayWorkers(1)
    workers.stop()
    assert workers.run(Path.touch, tmp_path / "started") == STOPPED
    assert not (tmp_path / "started").exists()


def test_an_address_is_of_the_ray_engine(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["experiment", str(write_recipe()), "--out", str(tmp_path), "--address", "auto"])
    assert isinstance(result.exception, LorarecError)
    assert str(result.exception) == "--address is for a Ray cluster: add --executor ray"

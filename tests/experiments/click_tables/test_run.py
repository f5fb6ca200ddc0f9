"""RecLoRA's tables from recipe to pictures."""

import json
import os
import signal
import statistics
import threading
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from lorarec.cli.entry import app
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.experiments import ClicksRecipe, read_clicks, run_clicks
from lorarec.experiments.click_tables.row_runner import run_row_in_process
from lorarec.experiments.click_tables.rows import main_row
from lorarec.io.artefacts import read_json
from lorarec.io.locks import locked
from lorarec.metrics import adjust_p_values
from lorarec.metrics.classification import auc, delong_test


def _command(*words: object) -> Any:
    return CliRunner().invoke(app, ["experiment", *map(str, words)], env={"COLUMNS": "100"})


def _write_rows(recipe: ClicksRecipe, out: Path, rows: list[str], events: int = 200) -> dict[str, np.ndarray]:
    """Write finished rows without intervals, as earlier versions did; return labels and probabilities."""
    random = np.random.default_rng(0)
    labels = random.integers(2, size=events)
    (out / "rows").mkdir(parents=True)
    settings = {"dataset": "taste", "fingerprint": Dataset.load(recipe.dataset).fingerprint}
    settings |= {
        "backbone": recipe.backbone,
        "ctr_model": recipe.ctr_model,
        "first_seed": recipe.seeds[0],
        "options": recipe.shared_options,
    }
    (out / "settings.json").write_text(json.dumps(settings))
    found = {}
    for row in rows:
        found[row] = (0.3 * labels + 0.7 * random.random(events)).clip(0, 1)
        table = pl.DataFrame({"event": np.arange(events), "label": labels, "probability": found[row]})
        table.write_parquet(out / "rows" / f"{row}.parquet")
        figures = {"auc": auc(found[row], labels), "log_loss": 0.5, "accuracy": 0.7, "calibration_error": 0.1}
        (out / "rows" / f"{row}.json").write_text(json.dumps({"row": row, "figures": figures, "seconds": 60.0}))
    return found | {"labels": labels}


def test_a_small_recipe_runs_row_by_row_and_resumes(write_clicks: Callable[..., Path], tmp_path: Path) -> None:
    path, out = write_clicks(rows=["reclora"]), tmp_path / "out"
    result = _command(path, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == read_json(out / "tables.json")
    assert list(found["main"]) == ["reclora", "reclora-blended"]
    assert found["events"] == 36
    assert found["failed"] == {}
    assert set(found["seconds"]) == {"reclora-seed1", "reclora-blended-seed1"}
    for row in found["main"].values():
        assert row["auc"]["low"] <= row["auc"]["mean"] <= row["auc"]["high"]
    own = read_json(out / "rows" / "reclora-seed1.json")
    assert 0 <= own["figures"]["recommender_auc"] <= 1
    assert own["seconds"] == found["seconds"]["reclora-seed1"]
    assert own["figures"]["auc"] == found["main"]["reclora"]["auc"]["seeds"]["1"]
    assert "| RecLoRA + recommender | " in (out / "tables.md").read_text()
    assert (out / "main.png").stat().st_size > 3000
    assert not (out / "analyses.png").exists()
    assert read_clicks(out / "recipe.yaml") == read_clicks(path)
    written = (out / "rows" / "reclora-seed1.json").stat().st_mtime_ns
    again = _command(out / "recipe.yaml", "--out", out)
    assert again.exit_code == 0, again.output
    assert "reclora-seed1: done before" in again.stderr
    assert "RecLoRA + recommender" in again.stdout
    assert (out / "rows" / "reclora-seed1.json").stat().st_mtime_ns == written


def test_a_row_that_fails_is_named_and_the_others_stand(write_clicks: Callable[..., Path], tmp_path: Path) -> None:
    path, out = write_clicks(samples=10**6), tmp_path / "out"
    _write_rows(read_clicks(path), out, ["din-seed1"])
    result = _command(path, "--out", out, "--json")
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert list(found["main"]) == ["din"]
    assert "cannot draw 1000000 of " in found["failed"]["reclora-seed1"]
    assert "- reclora-seed1: cannot draw" in (out / "tables.md").read_text()


class _InterruptedWorker:
    """A worker that gets Ctrl+C while it fits the first row."""

    count, threads = 1, 1

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        os.kill(os.getpid(), signal.SIGINT)
        self._stopped.wait()
        return "it was stopped"

    def stop(self) -> None:
        self._stopped.set()


def test_rows_that_an_interruption_ends_are_not_said_to_have_failed(
    write_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out, printed = read_clicks(write_clicks()), tmp_path / "out", StringIO()
    _write_rows(recipe, out, ["din-seed1"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_clicks(recipe, out, workers=_InterruptedWorker(), console=Console(file=printed))
    finally:
        signal.signal(signal.SIGINT, before)
    assert printed.getvalue() == "din-seed1: done before\n"
    assert not (out / "tables.json").exists()


def test_a_folder_of_something_else_is_refused(write_clicks: Callable[..., Path], tmp_path: Path) -> None:
    recipe, out = read_clicks(write_clicks()), tmp_path / "out"
    _write_rows(recipe, out, [])
    with pytest.raises(LorarecError, match=r"out holds another experiment: first_seed was 1 and is now 2"):
        run_clicks(replace(recipe, seeds=[2, 1]), out)
    (out / "settings.json").unlink()
    with pytest.raises(LorarecError, match=r"is no experiment folder \(it has no settings\.json\)"):
        run_clicks(recipe, out)


def test_rows_of_an_earlier_version_are_summarized(write_clicks: Callable[..., Path], tmp_path: Path) -> None:
    kinds = ("din", "rella", "reclora", "rella-blended", "reclora-blended")
    rows = [f"{kind}-seed{seed}" for kind in kinds for seed in (1, 2)]
    points = ["no-few2many", "no-retriever", "size-2", "size-4", "size-8", "size-16"]
    chosen = {"rows": ["din", "rella", "reclora"], "analyses": ["size", "left out"], "seeds": [1, 2]}
    recipe, out = read_clicks(write_clicks(**chosen)), tmp_path / "out"
    found = _write_rows(recipe, out, [*rows, *points])
    labels = found["labels"]
    tables = run_clicks(recipe, out)
    figures = tables["main"]["reclora"]["auc"]
    each = [auc(found[f"reclora-seed{seed}"], labels) for seed in (1, 2)]
    assert figures["mean"] == pytest.approx(np.mean(each))
    assert figures["deviation"] == pytest.approx(statistics.stdev(each))
    assert figures["seeds"] == {"1": each[0], "2": each[1]}
    first = tables["differences"][0]
    assert (first["row"], first["other"], first["seed"]) == ("reclora", "rella", "1")
    assert first["auc"] == pytest.approx(each[0] - auc(found["rella-seed1"], labels))
    assert first["p"] == delong_test(found["reclora-seed1"], found["rella-seed1"], labels)
    assert len(tables["differences"]) == 10
    raw, adjusted = ([each[key] for each in tables["differences"]] for key in ("p", "adjusted_p"))
    assert adjusted == adjust_p_values(raw).tolist()
    report = (out / "tables.md").read_text()
    assert "p: DeLong's test over the same events. Corrected p: Holm's correction for 10 comparisons." in report
    assert "Corrected p: Holm's correction for 5 comparisons." in report
    sizes = tables["analyses"]["size"]
    assert list(sizes) == ["1", "2", "3", "4", "8", "16"]
    assert sizes["3"]["p"] is None
    assert sizes["2"]["p"] == delong_test(found["size-2"], found["reclora-seed1"], labels)
    assert (out / "analyses.png").stat().st_size > 3000
    assert "## RecLoRA: left out (seed 1)" in (out / "tables.md").read_text()


def test_a_row_that_another_process_is_at_is_left_to_it(write_clicks: Callable[..., Path], tmp_path: Path) -> None:
    recipe, out = read_clicks(write_clicks()), tmp_path / "out"
    with locked(out / "locks" / "din-seed1"):
        run_row_in_process(recipe, out, main_row("din", 1), torch.get_num_threads(), progress=False)
    assert not (out / "rows").exists()

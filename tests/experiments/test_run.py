"""Ranking experiments from recipe to table."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import lorarec
from lorarec.cli.entry import app
from lorarec.data import Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.evaluation import evaluate
from lorarec.experiments import RECOMMENDERS, Recipe, RowConfig, read_experiment, run_experiment
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.job import ROWS, Job, read_ranks, run_job
from lorarec.experiments.report import markdown
from lorarec.experiments.run import row_jobs
from lorarec.experiments.table import ExperimentTable, build_table
from lorarec.experiments.tune import tune
from lorarec.io.artefacts import read_json, write_json
from lorarec.metrics import ndcg
from lorarec.ranking import PoolScorer
from lorarec.recommenders import BASELINES, TrainingData
from lorarec.retrieval import Index
from tests.factories import dataset_of

RECIPES = Path(__file__).parents[2] / "recipes" / "tables"
QUICK = {"epochs": 3, "hidden_size": 8, "batch_size": 64, "learning_rate": 2e-2}


def _command(*words: object) -> Any:
    return CliRunner().invoke(app, ["experiment", *map(str, words)])


def _table(recipe: Recipe, out: Path) -> ExperimentTable:
    """Return the table of a recipe without trials; all jobs run in this process."""
    data = ExperimentData.load(recipe)
    (out / ROWS).mkdir(parents=True)
    baselines = [Job(name, recipe.seeds[0], share) for share in recipe.shares for name in BASELINES]
    rows = row_jobs(recipe)
    for job in (*baselines, *rows):
        run_job(recipe, data, out, job, progress=False)
    return build_table(recipe, data, out, [*baselines, *rows], {})


def test_rows_that_draw_nothing_are_done_once(write_recipe: Callable[..., Path]) -> None:
    rows = {"plain": {"system": "zero-shot"}, "bpr-mf": {}}
    recipe = read_experiment(write_recipe(rows=rows, seeds=[3, 1], few_shot=[0.5], backbone="embedded"))
    assert row_jobs(recipe) == [Job("plain", 3, 0.5), Job("bpr-mf", 3, 0.5), Job("bpr-mf", 1, 0.5)]


def test_a_seed_that_failed_is_named_and_one_that_was_not_needed_is_not(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    rows = {"bpr-mf": {"options": QUICK}, "zero-shot": {}}
    recipe = read_experiment(write_recipe(rows=rows, seeds=[1, 2], users=5, backbone="embedded"))
    data, failed = ExperimentData.load(recipe), Job("bpr-mf", 2)
    (tmp_path / ROWS).mkdir()
    done = [job for job in row_jobs(recipe) if job != failed]
    for job in done:
        run_job(recipe, data, tmp_path, job, progress=False)
    text = markdown(build_table(recipe, data, tmp_path, [*done, failed], {failed: "no memory"}))
    assert "| bpr-mf (a seed failed) |" in text
    assert "| zero-shot |" in text


def test_a_killed_run_is_resumed_and_a_row_that_fails_does_not_stop_others(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    tuned = {"options": QUICK, "tune": {"learning_rate": [1e-2, 2e-2], "hidden_size": [4, 8]}}
    slow = {"system": "bpr-mf", "options": QUICK | {"epochs": 10**6, "patience": 10**6}}
    broken = {"system": "sasrec", "options": {"epochs": 1, "learning_rate": 1e30}}
    keys = {"trials": 2, "paper": {"bpr-mf": {"warm": {"ndcg@1": 0.1234}}}, "source": "a paper", "users": 30}
    path, out = write_recipe(rows={"bpr-mf": tuned, "other": slow}, **keys), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    words = [sys.executable, "-m", "lorarec", "experiment", str(path), "--out", str(out)]
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
        first = Job("bpr-mf", 1).record(out)
        while not first.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    written = first.stat().st_mtime_ns
    write_recipe(rows={"bpr-mf": tuned, "other": broken}, **keys)
    result = _command(path, "--out", out, "--json")
    assert result.exit_code == 1, result.output
    assert "bpr-mf-tuned: done before" in result.stderr
    assert "bpr-mf-seed1: done before" in result.stderr
    assert "[1/1] other-seed1: failed: " in result.stderr
    assert first.stat().st_mtime_ns == written
    found = json.loads(result.stdout)
    assert found == read_json(out / "table.json")
    assert list(found["failed"]) == ["other-seed1"]
    warm = found["settings"]["warm"]
    assert list(warm["rows"]) == [*BASELINES, "bpr-mf"]
    assert warm["cases"] == 30
    row = warm["rows"]["bpr-mf"]
    assert row["paper"] == {"ndcg@1": 0.1234}
    assert row["peak_mib"] > 50
    assert len(row["trials"]) == 2
    assert row["options"] == row["trials"][0]["options"]
    assert row["trials"][0]["ndcg@10"] >= row["trials"][1]["ndcg@10"]
    report = (out / "table.md").read_text()
    assert "- other-seed1: " in report
    assert "| 0.1234 |" in report
    assert (out / "ndcg.png").stat().st_size > 0
    assert read_experiment(out / "recipe.yaml") == read_experiment(path)
    with pytest.raises(LorarecError, match=r"out holds another experiment: users was 30 and is now 20"):
        run_experiment(replace(read_experiment(path), users=20), out)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_interrupted_run_ends_its_processes_and_says_how_to_go_on(
    write_recipe: Callable[..., Path], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in background jobs, children too
    slow = {"system": "bpr-mf", "options": QUICK | {"epochs": 10**6, "patience": 10**6}}
    path, out = write_recipe(rows={"ease": {}, "slow": slow, "never": slow}), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    words = [sys.executable, "-m", "lorarec", "experiment", str(path), "--out", str(out)]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # Nothing wakes up the main thread from this line on.
        assert any(line.startswith("[1/3] ease-seed1: ") for line in process.stderr)
        while not (
            rows := [each for each in psutil.Process(process.pid).children() if "spawn_main" in str(each.cmdline())]
        ):
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    assert errors.splitlines()[-1] == "interrupted: the same command continues, and keeps what is finished"
    assert "failed" not in errors
    assert "Traceback" not in errors
    assert not any(row.is_running() for row in rows)
    assert not list(out.rglob(".*"))


def test_the_sample_recipe_fills_a_table_with_every_system(
    dataset_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    recipe = read_experiment(RECIPES / "sample.yaml")
    small = {"epochs": 1, "samples": 4, "cases": 2, "prompts": 2, "max_history": 2, "prefixes": 1, "pretrain_epochs": 1}

    def shrunk(options: dict[str, Any]) -> dict[str, Any]:
        """Make options smaller, also those of the systems of a fusion."""
        return {
            key: shrunk(value) if isinstance(value, dict) else small.get(key, value) for key, value in options.items()
        }

    rows = {name: RowConfig(row.system, shrunk(row.options)) for name, row in recipe.rows.items()}
    # Two small domains, in place of all four.
    data = {"dataset": str(other_folder), "general": [str(dataset_folder)]}
    less = replace(recipe, rows=rows, users=3, settings=["warm"], **data)
    table = _table(less, tmp_path / "out")
    assert set(table.evaluation.settings["warm"].rows) == RECOMMENDERS.keys()
    assert (tmp_path / "out" / "artefacts").is_dir()


def test_figures_are_those_of_evaluate(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = read_experiment(
        write_recipe(rows={"bpr-mf": {"options": QUICK}}, settings=["warm", "new-item"], compare_with="tf-idf")
    )
    table = _table(recipe, tmp_path / "out")
    dataset = Dataset.load(recipe.dataset)
    split = load_split(dataset)
    row = RECOMMENDERS["bpr-mf"].from_options(QUICK).fit(TrainingData(dataset, split, seed=1))
    wanted = evaluate(dataset, {"bpr-mf": row}, split=split, compare_with="tf-idf")
    for setting, result in wanted.settings.items():
        found = table.evaluation.settings[setting]
        assert found.candidates == result.candidates
        for name in set(result.rows) - {"random"}:
            for metric, expected in result.rows[name].metrics.items():  # the tables show other numbers of metrics
                assert replace(found.rows[name].metrics[metric], adjusted_p=None) == replace(expected, adjusted_p=None)


def test_the_backbone_has_the_data_type_of_the_recipe(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = read_experiment(write_recipe(rows={"zero-shot": {}}, users=5, backbone="embedded", dtype="bfloat16"))
    assert "- backbone: embedded in bfloat16\n" in markdown(_table(recipe, tmp_path / "out"))
    data = ExperimentData.load(recipe)
    backbone = data.training_data(recipe, None, 1, tmp_path, progress=False).backbone
    assert backbone is not None
    assert backbone.model.dtype == torch.bfloat16
    assert data.identity(recipe) != data.identity(replace(recipe, dtype="auto"))


def test_figures_of_seeds_are_means_of_cases(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = {"bpr-mf": {"options": QUICK}, "best": {"system": "sasrec", "options": QUICK | {"epochs": 8}}}
    keys = {"seeds": [1, 2], "few_shot": [0.5, 1], "correction": "benjamini-hochberg"}
    table = _table(read_experiment(write_recipe(rows=rows, **keys)), tmp_path / "out")
    assert list(table.evaluation.settings) == ["warm 50%", "warm 100%"]
    result = table.evaluation.settings["warm 100%"].rows["bpr-mf"]
    assert result.ranks.shape == (2, table.evaluation.settings["warm 100%"].cases)
    assert result.metrics["ndcg@3"].mean == pytest.approx(ndcg(result.ranks, 3).mean())
    assert all(row.metrics["ndcg@1"].p is not None for row in table.evaluation.settings["warm 100%"].rows.values())
    assert table.evaluation.settings["warm 100%"].comparisons == 6 * 5  # rows and metrics of table.md
    assert "\\*: p < 0.05 after the Benjamini-Hochberg correction for 30 comparisons." in markdown(table)
    assert table.costs["warm 100%"]["bpr-mf"].seeds == [1, 2]


def test_a_row_is_described_once_unless_tables_differ(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = {"bpr-mf": {"options": QUICK}}
    table = _table(read_experiment(write_recipe(rows=rows, settings=["warm", "new-item"])), tmp_path / "out")
    assert [line for line in markdown(table).splitlines() if line.startswith("- **bpr-mf**")] == [
        "- **bpr-mf**: BPR-MF, hidden size 8; epochs 3, hidden\\_size 8, batch\\_size 64, learning\\_rate 0.02"
    ]
    table.costs["new-item"]["bpr-mf"] = replace(table.costs["new-item"]["bpr-mf"], options={"learning_rate": 1})
    assert [line for line in markdown(table).splitlines() if line.startswith("- **bpr-mf**")] == [
        "- **bpr-mf**, warm: BPR-MF, hidden size 8; epochs 3, hidden\\_size 8, batch\\_size 64, learning\\_rate 0.02",
        "- **bpr-mf**, new-item: BPR-MF, hidden size 8; learning\\_rate 1",
    ]


def test_only_a_row_with_other_options_is_new(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe, out = read_experiment(write_recipe(rows={"bpr-mf": {}, "other": {"system": "bpr-mf"}})), tmp_path
    (out / ROWS).mkdir()
    jobs = [Job("bpr-mf", 1), Job("other", 1)]
    for job in jobs:
        job.record(out).write_text(json.dumps({"made_from": job.made_from(recipe)}))
    other = {"system": "bpr-mf", "options": {"learning_rate": 0.1}}
    changed = read_experiment(write_recipe(rows={"bpr-mf": {}, "other": other}))
    assert [job.is_done(recipe, out) for job in jobs] == [True, True]
    assert [job.is_done(changed, out) for job in jobs] == [True, False]


def test_rows_of_another_version_or_with_other_defaults_are_done_again(
    write_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = {"systems": {"tf-idf": None, "knn": {"system": "item-knn", "max_history": 5}}, "pool": 0}
    rows = {"bpr-mf": {}, "fused": {"system": "fusion", "options": fused}}
    recipe, out = read_experiment(write_recipe(rows=rows)), tmp_path
    (out / ROWS).mkdir()
    jobs = [Job("popularity", 1), Job("bpr-mf", 1), Job("fused", 1)]

    def done() -> list[bool]:
        return [job.is_done(recipe, out) for job in jobs]

    def write(*dropped: str) -> None:
        for job in jobs:
            made_from = {key: value for key, value in job.made_from(recipe).items() if key not in dropped}
            job.record(out).write_text(json.dumps({"made_from": made_from}))

    write()
    assert done() == [True, True, True]
    with monkeypatch.context() as patch:
        patch.setattr(RECOMMENDERS["item-knn"], "version", 2)
        assert done() == [True, True, False]  # a fusion of a system is as old as the system
        patch.setattr(RECOMMENDERS["popularity"], "version", 2)
        assert done() == [False, True, False]
    record = read_json(jobs[1].record(out))
    assert record["made_from"]["options"]["patience"] == 5  # a default
    record["made_from"]["options"]["patience"] = 4
    write_json(jobs[1].record(out), record)
    assert done() == [True, False, True]
    record["made_from"]["options"] = {"gone": 4}
    write_json(jobs[1].record(out), record)
    assert done() == [True, False, True]
    write("versions")  # as they were written before there were versions
    assert done() == [True, True, False]


class ThisProcess:
    """Workers that do one job after the other in this process."""

    count = threads = 1

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        function(*arguments)
        return None


def test_a_row_that_is_done_again_is_named(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    options = {"systems": {"tf-idf": None, "popularity": None}, "pool": 0}
    recipe, out = read_experiment(write_recipe(rows={"fusion": {"options": options}}, users=20)), tmp_path / "out"
    record_path = Job("fusion", 1).record(out)

    def run() -> str:
        console = Console(file=StringIO(), width=200)
        run_experiment(recipe, out, workers=ThisProcess(), console=console)
        return console.file.getvalue()

    assert "again" not in run()
    record = read_json(record_path)
    assert record["made_from"].pop("versions") == [3, 1, 1]
    write_json(record_path, record)
    assert "fusion-seed1: done again, its record has other options or another version" in run()
    assert read_json(record_path)["made_from"]["versions"] == [3, 1, 1]
    assert "fusion-seed1: done before" in run()


def test_the_report_names_every_machine_that_rows_were_fitted_on(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out = read_experiment(write_recipe(rows={"bpr-mf": {"options": QUICK}}, users=20)), tmp_path / "out"
    console = Console(file=StringIO())
    run_experiment(recipe, out, workers=ThisProcess(), console=console)
    record = read_json(Job("bpr-mf", 1).record(out))
    assert record["hardware"]["cores"] >= 1
    elsewhere = {
        "hardware": {"cores": 64, "memory_gib": 503.5, "gpu": "cuda:0 (A, 80 GiB)"},
        "versions": {"torch": "9.9"},
    }
    write_json(Job("bpr-mf", 1).record(out), record | elsewhere)
    run_experiment(recipe, out, workers=ThisProcess(), console=console)
    lines = (out / "table.md").read_text().splitlines()
    assert "- hardware: 64 cores, 503.5 GiB, GPU cuda:0 (A, 80 GiB)" in lines
    assert len([line for line in lines if line.startswith("- hardware: ")]) == 2  # the baselines are of this machine
    assert "- versions: torch 9.9" in lines


def test_the_report_says_where_the_hardware_of_rows_is_not_known(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, out = read_experiment(write_recipe(rows={"bpr-mf": {"options": QUICK}}, users=20)), tmp_path / "out"
    run_experiment(recipe, out, workers=ThisProcess(), console=Console(file=StringIO()))
    record = read_json(Job("bpr-mf", 1).record(out))
    del record["hardware"]  # as earlier versions wrote it
    write_json(Job("bpr-mf", 1).record(out), record)
    run_experiment(recipe, out, workers=ThisProcess(), console=Console(file=StringIO()))
    assert "- hardware: not recorded for some rows" in (out / "table.md").read_text().splitlines()


def test_trials_see_validation_cases_only(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    tried = {"learning_rate": [1e-4, 1e-2, 3e-2], "hidden_size": [2, 4, 8]}
    recipe = read_experiment(write_recipe(rows={"bpr-mf": {"options": QUICK, "tune": tried}}, trials=4))
    data = ExperimentData.load(recipe)

    def trials(name: str, split: Split) -> list[dict[str, Any]]:
        training_data = replace(data, split=split).training_data(recipe, None, 1, tmp_path, False)
        return tune(recipe.rows["bpr-mf"], 4, training_data, tmp_path / name)[0]

    garbage = {
        "warm": pl.DataFrame({"user_id": ["nobody"], "history": [["?"]], "target": ["!"], "candidates": [["!"]]})
    }
    chosen = trials("a.json", data.split)
    assert chosen == trials("b.json", replace(data.split, test=garbage))
    assert len({str(trial["options"]) for trial in chosen}) == 4
    shuffled = data.split.valid.with_columns(pl.col("target").reverse(), pl.col("candidates").reverse())
    other = trials("c.json", replace(data.split, valid=shuffled))
    assert [trial["ndcg@10"] for trial in other] != [trial["ndcg@10"] for trial in chosen]


def test_trials_are_resumed(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    row = RowConfig("bpr-mf", QUICK, {"learning_rate": [1e-4, 1e-2, 3e-2]})
    recipe = read_experiment(write_recipe(rows={"bpr-mf": {}}))
    training_data = ExperimentData.load(recipe).training_data(recipe, None, 1, tmp_path, False)
    trials_file = tmp_path / "kept.json"
    whole, best = tune(row, 3, training_data, trials_file)
    assert best is not None
    assert training_data.validation_ndcg(best.scorer) == whole[0]["ndcg@10"]
    first, *others = read_json(trials_file)
    assert sorted(map(str, [first, *others])) == sorted(map(str, whole))
    write_json(trials_file, [first | {"ndcg@10": 0.99}])  # a value that no fit gives: the trial is not repeated
    again, best = tune(row, 3, training_data, trials_file)
    assert best is None
    assert again[0] == first | {"ndcg@10": 0.99}
    assert [trial for trial in whole if trial != first] == again[1:]
    for other, changed in (
        (replace(row, system="sasrec", options={"epochs": 1}), training_data),
        (row, replace(training_data, seed=2)),
    ):
        assert all(trial["ndcg@10"] != 0.99 for trial in tune(other, 3, changed, trials_file)[0])


@pytest.mark.parametrize("system", ["bpr-mf", "gru4rec", "vq-rec"])
def test_the_best_trial_is_the_row_with_the_first_seed(
    system: str, write_recipe: Callable[..., Path], other_folder: Path, tmp_path: Path
) -> None:
    row = {"system": system, "options": {"epochs": 2}, "tune": {"learning_rate": [1e-3, 1e-2, 3e-2]}}
    keys = {"general": [str(other_folder)], "backbone": "embedded", "users": 20}
    recipe = read_experiment(write_recipe(rows={"tuned": row}, trials=3, seeds=[4, 1], **keys))
    data, (first, _) = ExperimentData.load(recipe), row_jobs(recipe)
    (tmp_path / ROWS).mkdir()
    run_job(recipe, data, tmp_path, replace(first, tunes=True), progress=False)
    assert first.is_done(recipe, tmp_path)
    found, ranks = read_json(first.record(tmp_path)), read_ranks(tmp_path, first, "warm")
    run_job(recipe, data, tmp_path, first, progress=False)
    np.testing.assert_array_equal(read_ranks(tmp_path, first, "warm"), ranks)
    again = read_json(first.record(tmp_path))
    assert {key: again[key] for key in ("made_from", "options")} == {
        key: found[key] for key in ("made_from", "options")
    }


def test_systems_are_given_no_test_case(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = read_experiment(write_recipe(settings=["warm", "new-item"]))
    assert ExperimentData.load(recipe).training_data(recipe, None, 1, tmp_path, False).split.test == {}


def test_a_folder_of_something_else_is_refused(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(LorarecError, match="is no experiment"):
        run_experiment(read_experiment(write_recipe()), tmp_path / "out")


def test_ranks_of_other_candidates_are_refused(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe, out = read_experiment(write_recipe(rows={"bpr-mf": {"options": QUICK}})), tmp_path / "out"
    _table(recipe, out)
    job = Job("bpr-mf", 1)
    record = read_json(job.record(out))
    record["settings"]["warm"]["candidates"] = "0" * 16
    job.record(out).write_text(json.dumps(record))
    with pytest.raises(LorarecError, match="bpr-mf-seed1 ranked other candidate sets of warm"):
        build_table(recipe, ExperimentData.load(recipe), out, [job], {})


def test_a_table_over_the_whole_catalogue(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    adapter = {"samples": 4, "epochs": 1, "batch_size": 4, "negatives": 2, "eval_users": 0, "hard_negatives": 0.5}
    fused = {"pool": 7, "systems": {"specific": adapter, "tf-idf": None, "popularity": None}}
    exact = {"pool": 0, "systems": {"tf-idf": None, "popularity": None}}
    rows = {
        "bpr-mf": {"options": QUICK},
        "specific": {"options": adapter},
        "fusion": {"options": fused},
        "without-lm": {"system": "fusion", "options": exact},
    }
    keys = {"candidates": "all", "pool": 7, "users": 12, "backbone": "embedded", "settings": ["warm", "new-item"]}
    recipe = read_experiment(
        write_recipe(rows=rows, paper={"bpr-mf": {"warm": {"recall@10": 0.25}}}, source="x", **keys)
    )
    assert list(recipe.rows) == ["index", "bpr-mf", "specific", "fusion", "without-lm"]
    table = _table(recipe, tmp_path / "out")
    dataset = Dataset.load(recipe.dataset)
    split = load_split(dataset)
    bpr_mf = RECOMMENDERS["bpr-mf"].from_options(QUICK).fit(TrainingData(dataset, split, seed=1))
    index = Index.load(next((tmp_path / "out" / "artefacts").glob("index-*")), dataset)
    assert index.record["counts"]["interactions"] == split.train["history"].list.len().sum()
    scorers = {"index": PoolScorer(index, pool=7), "bpr-mf": bpr_mf}
    wanted = evaluate(dataset, scorers, split=split, candidates="all", limit=12)
    for setting, result in wanted.settings.items():
        found = table.evaluation.settings[setting]
        assert (found.candidates, found.catalogue) == (result.candidates, 40)
        for name in set(result.rows) - {"random"}:
            assert found.rows[name].ranks[0].tolist() == result.rows[name].ranks.tolist()
            assert found.rows[name].properties == result.rows[name].properties
        in_pool = [np.isfinite(found.rows[name].ranks).tolist() for name in ("index", "specific", "fusion")]
        assert in_pool[0] == in_pool[1] == in_pool[2]
        assert np.isfinite(found.rows["without-lm"].ranks).all()
    text = markdown(table)
    assert "| row | RECALL@10 | RECALL@100 | NDCG@10 | MRR | paper RECALL@10 | COVERAGE@10 | GINI@10 |" in text
    assert "- **specific**: the 7 items that an index proposes" in text.replace(", warm", "").replace(", new-item", "")
    assert "re-ranked; other items have no rank; fusion of specific, tf-idf, popularity" in text
    assert "re-ranked with its order as a prior; other items have no rank; backbone embedded" in text
    json.dumps(table.as_dict())


def test_another_pool_is_another_row(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = {"zero-shot": {}, "bpr-mf": {}}
    small, large, stored = (
        read_experiment(write_recipe(rows=rows, backbone="embedded", **keys))
        for keys in ({"candidates": "all", "pool": 7}, {"candidates": "all"}, {})
    )
    assert [Job("zero-shot", 1).made_from(each).get("pool") for each in (small, large, stored)] == [7, 100, None]
    assert "index_version" in Job("zero-shot", 1).made_from(small)
    assert Job("bpr-mf", 1).made_from(small) == Job("bpr-mf", 1).made_from(stored)
    assert list(stored.rows) == ["zero-shot", "bpr-mf"]


def test_cases_whose_right_item_is_in_the_history_are_left_out_of_catalogues(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [
        (f"u{user:02}", f"i{(user + step * (user < 10 or step < 5)) % 30}", step)
        for user in range(12)
        for step in range(6)
    ]
    dataset_of(rows).save(tmp_path / "data")
    split = {"new_items": 0, "negatives": 9}
    recipe = read_experiment(write_recipe(dataset=str(tmp_path / "data"), candidates="all", split=split))
    data = ExperimentData.load(recipe)
    assert data.repeats == {"warm": 2}
    assert data.cases["warm"]["user_id"].to_list() == [f"u{user:02}" for user in range(10)]

"""Jobs of an experiment: a row is fitted with one seed, or its options are tuned, in a process of its own."""

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from lorarec.backbone import describe_accelerators
from lorarec.data import USER
from lorarec.errors import LorarecError
from lorarec.evaluation import METRICS_OF, metrics_per_case, rank_cases
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.former_names import current_names
from lorarec.experiments.index_row import catalogue_scorer
from lorarec.experiments.recipe import Recipe, table_name
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.experiments.row_key import recorded_key, row_key
from lorarec.experiments.tune import Fit, tune
from lorarec.experiments.workers import run_in_subprocess
from lorarec.io import JsonObject, new_file, read_json, total_memory, versions, write_json
from lorarec.recommenders import BASELINES, Scorer, TrainingData
from lorarec.retrieval import INDEX_VERSION

#: Folder of the results of rows, and folder of adapters and weights that rows share.
ROWS, SHARED = "rows", "artefacts"
_SETTING, _RANK = "setting", "rank"


@dataclass(frozen=True)
class Job:
    """A row of the table with one seed.

    Attributes:
        row: Name of the row.
        seed: Seed of the fit.
        share: Share of the training users; None for all.
        tunes: Whether the job tunes the options of the row in place of fitting it.
    """

    row: str
    seed: int
    share: float | None = None
    tunes: bool = False

    @property
    def name(self) -> str:
        """Name of the job, in messages and of its files."""
        few = "" if self.share is None else f"-few{self.share:g}"
        return f"{self.row}{few}-{'tuned' if self.tunes else f'seed{self.seed}'}"

    def record(self, out: Path) -> Path:
        """Return the path of the record, which is written last."""
        return out / ROWS / f"{self.name}.json"

    def made_from(self, recipe: Recipe) -> JsonObject:
        """Return the values that decide the job's results, besides the data."""
        if self.row in BASELINES:
            return row_key(self.row, {}) | {"seed": self.seed}
        row = recipe.rows[self.row]
        made_from = row_key(row.system, row.options) | {"seed": self.seed}
        if row.tune:
            made_from |= {"tune": row.tune, "trials": recipe.trials, "tuned_with": recipe.seeds[0]}
        if recipe.candidates == "all" and not RECOMMENDERS[row.system].scores_catalogue:
            made_from |= {"pool": recipe.pool, "index_version": INDEX_VERSION}
        return made_from

    def is_done(self, recipe: Recipe, out: Path) -> bool:
        """Return whether the files of the job exist and were made from this row of the recipe by this version."""
        path = self.record(out)
        return path.exists() and _current_form(read_json(path)["made_from"]) == self.made_from(recipe)


def _current_form(made_from: JsonObject) -> JsonObject | None:
    """Return the entry `made_from` of a record as it is written now; None if its options do not exist any more."""
    try:
        current = made_from | recorded_key(made_from)
    except LorarecError:
        return None
    if "tune" in made_from:
        current["tune"] = current_names(RECOMMENDERS[made_from["system"]].config_class, made_from["tune"])
    return current


def run_job_in_process(recipe: Recipe, out: Path, job: Job, threads: int, progress: bool) -> None:
    """Run a job in a process of its own, which ends when the process that started it ends.

    Raises:
        LorarecError: The job failed.
    """
    with run_in_subprocess(threads):
        run_job(recipe, ExperimentData.load(recipe), out, job, progress)


def run_job(recipe: Recipe, data: ExperimentData, out: Path, job: Job, progress: bool) -> None:
    """Run a job and write its files, the record last.

    The best trial of a job that tunes is the row with the seed of the trials: it is ranked as well if it was fitted
    here.
    """
    began = time.perf_counter()
    if not job.tunes:
        fit, options = _fit(recipe, data, out, job, progress)
        return _rank(recipe, data, out, job, fit, options, began, progress)
    training_data = data.training_data(recipe, job.share, job.seed, out / SHARED, progress)
    trials_file = job.record(out).with_suffix(".trials.json")
    trials, best = tune(recipe.rows[job.row], recipe.trials, training_data, trials_file)
    options = trials[0]["options"]
    _write_record(recipe, out, job, {"options": options, "trials": trials}, began)
    fitted = Job(job.row, job.seed, job.share)
    if best is not None and not fitted.is_done(recipe, out):
        _rank(recipe, data, out, fitted, best, options, time.perf_counter(), progress)


def _fit(recipe: Recipe, data: ExperimentData, out: Path, job: Job, progress: bool) -> tuple[Fit, JsonObject]:
    """Return the fitted row and the options it was fitted with, tuned ones included."""
    began = time.perf_counter()
    if job.row in BASELINES:
        training_data = TrainingData(data.dataset, data.split_with_share(job.share, job.seed), seed=job.seed)
        return Fit(BASELINES[job.row]().fit(training_data), time.perf_counter() - began), {}
    row = recipe.rows[job.row]
    tuned = Job(job.row, recipe.seeds[0], job.share, tunes=True)
    recommender_class, options = RECOMMENDERS[row.system], row.options
    if row.tune:
        options = current_names(recommender_class.config_class, read_json(tuned.record(out))["options"])
    training_data = data.training_data(recipe, job.share, job.seed, out / SHARED, progress)
    recommender = recommender_class.from_options(options).fit(training_data)
    return Fit(recommender, time.perf_counter() - began), options


def _rank(
    recipe: Recipe,
    data: ExperimentData,
    out: Path,
    job: Job,
    fit: Fit,
    options: JsonObject,
    began: float,
    progress: bool,
) -> None:
    """Rank the test cases of every setting, and write the files of a row with one seed."""
    frames: list[pl.DataFrame] = []
    settings: dict[str, JsonObject] = {}
    hashes = data.candidates()
    scorer: Scorer = fit.scorer
    if data.catalogue is not None:
        split = replace(data.split_with_share(job.share, job.seed), test={})
        training_part = TrainingData(data.dataset, split, cache_dir=out / SHARED, seed=job.seed)
        scorer = catalogue_scorer(fit.scorer, training_part, recipe.pool)
    for setting, cases in data.cases.items():
        ranking = rank_cases(job.row, scorer, table_name(setting, job.share), cases, data.catalogue, progress)
        ranks = ranking.ranks.astype(np.float64)
        frames.append(pl.DataFrame({_SETTING: [setting] * len(ranks), USER: cases[USER], _RANK: ranks}))
        about = str(getattr(scorer, "about", ""))
        settings[setting] = {"candidates": hashes[setting], "seconds_per_user": ranking.seconds, "about": about}
        if weights := getattr(fit.scorer, "mixture_weights", None):
            settings[setting]["weights"] = weights
        if data.catalogue is not None:
            settings[setting]["properties"] = ranking.properties
    job.record(out).unlink(missing_ok=True)
    with new_file(_ranks_file(out, job)) as temporary:
        pl.concat(frames).write_parquet(temporary, compression="zstd")
    results = {"options": options, "fit_seconds": fit.seconds, "settings": settings}
    _write_record(recipe, out, job, results, began)


def _write_record(recipe: Recipe, out: Path, job: Job, results: JsonObject, began: float) -> None:
    """Write the record of a job: its results, the values that decide them, and its cost."""
    cost = {"seconds": time.perf_counter() - began, "peak_mib": _peak_mib(job)}
    machine = {"versions": versions(), "hardware": _hardware()}
    write_json(job.record(out), {"made_from": job.made_from(recipe), **machine, **results, **cost})


def _hardware() -> JsonObject:
    """Return the number of cores that this process may use, the memory, and the name of the GPU if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    accelerators = describe_accelerators()
    gpu = accelerators[0] if accelerators else None
    return {"cores": cores, "memory_gib": round(total_memory() / 2**30, 1), "gpu": gpu}


def read_ranks(out: Path, job: Job, setting: str) -> np.ndarray:
    """Return the ranks of the targets, (cases,), in the order of the cases."""
    ranks = pl.read_parquet(_ranks_file(out, job), glob=False).filter(pl.col(_SETTING) == setting)
    return ranks[_RANK].to_numpy()


def job_figures(recipe: Recipe, out: Path, job: Job) -> dict[str, float]:
    """Return what trackers get of a finished job: mean metrics of the test cases, properties, weights and costs.

    The metrics of a table (a setting, with few-shot shares as in `warm 10%`) have its name, as in `test_warm/ndcg@10`.
    """
    record, names = read_json(job.record(out)), METRICS_OF[recipe.candidates]
    figures = {name: record[name] for name in ("fit_seconds", "peak_mib") if record.get(name) is not None}
    for setting, results in record["settings"].items():
        table = f"test_{table_name(setting, job.share)}"
        means = metrics_per_case(read_ranks(out, job, setting), names).mean(0)
        figures |= {f"{table}/{name}": float(mean) for name, mean in zip(names, means, strict=True)}
        figures |= {f"{table}/{name}": value for name, value in results.get("properties", {}).items()}
        figures |= {f"{table}/weight {name}": value for name, value in results.get("weights", {}).items()}
        figures[f"{table}/seconds_per_user"] = results["seconds_per_user"]
    return figures


def _ranks_file(out: Path, job: Job) -> Path:
    return out / ROWS / f"{job.name}.parquet"


def _peak_mib(job: Job) -> float | None:
    """Return the largest resident memory of this process so far; None for baselines, which share a process."""
    if job.row in BASELINES:
        return None
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    # On Linux, getrusage also counts the memory of the parent process from before this one was started.
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    import resource  # Windows does not have it

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)

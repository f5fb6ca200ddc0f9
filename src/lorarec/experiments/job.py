"""One row fitted with one seed, or its options tuned: what a process of its own does, and the files it leaves."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil

from lorarec.data import USER
from lorarec.evaluation import target_ranks_of
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.recipe import Recipe, table_name
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.experiments.subprocess_run import run_in_subprocess
from lorarec.experiments.tune import Fit, tune
from lorarec.io import new_file, read_json, versions, write_json
from lorarec.recommenders import BASELINES, TrainingData

ROWS, SHARED = "rows", "artefacts"
SETTING, RANK = "setting", "rank"


@dataclass(frozen=True)
class Job:
    """A row with one seed and one share of the training users (None for all); `tunes` for its trials instead."""

    row: str
    seed: int
    share: float | None = None
    tunes: bool = False

    @property
    def name(self) -> str:
        """Of the job's files, and in what is told."""
        few = "" if self.share is None else f"-few{self.share:g}"
        return f"{self.row}{few}-{'tuned' if self.tunes else f'seed{self.seed}'}"

    def record(self, out: Path) -> Path:
        """The file that is there when the job is done."""
        return out / ROWS / f"{self.name}.json"

    def made_from(self, recipe: Recipe) -> dict[str, Any]:
        """What decides the job's outcome, besides the data."""
        if self.row in BASELINES:
            return {"system": self.row, "seed": self.seed}
        row = recipe.rows[self.row]
        decides = {"system": row.system, "options": row.options, "seed": self.seed}
        return decides | (
            {"tune": row.tune, "trials": recipe.trials, "tuned_with": recipe.seeds[0]} if row.tune else {}
        )

    def done(self, recipe: Recipe, out: Path) -> bool:
        """Whether its files are there and were made from this very row."""
        path = self.record(out)
        return path.exists() and read_json(path)["made_from"] == self.made_from(recipe)


def run_in_process(recipe: Recipe, out: Path, job: Job, threads: int, progress: bool) -> None:
    """`run` in a process of its own, which ends when the one that started it does.

    Raises:
        LorarecError: whatever went wrong, in one line.
    """
    with run_in_subprocess(threads):
        run(recipe, ExperimentData.load(recipe), out, job, progress)


def run(recipe: Recipe, ground: ExperimentData, out: Path, job: Job, progress: bool) -> None:
    """Do the job and write its files, the record last.

    The best trial is what the row is with the trials' seed: fitted here, it is ranked as well.
    """
    began = time.perf_counter()
    if not job.tunes:
        fit, options = _fitted(recipe, ground, out, job, progress)
        return _rank(recipe, ground, out, job, fit, options, began)
    material = ground.material(recipe, job.share, job.seed, out / SHARED, progress)
    trials, best = tune(recipe.rows[job.row], recipe.trials, material, job.record(out).with_suffix(".trials.json"))
    options = trials[0]["options"]
    _write_record(recipe, out, job, {"options": options, "trials": trials}, began)
    row = Job(job.row, job.seed, job.share)
    if best is not None and not row.done(recipe, out):
        _rank(recipe, ground, out, row, best, options, time.perf_counter())


def _fitted(recipe: Recipe, ground: ExperimentData, out: Path, job: Job, progress: bool) -> tuple[Fit, dict[str, Any]]:
    began = time.perf_counter()
    if job.row in BASELINES:
        data = TrainingData(ground.dataset, ground.of_share(job.share, job.seed), seed=job.seed)
        return Fit(BASELINES[job.row]().fit(data), time.perf_counter() - began), {}
    row = recipe.rows[job.row]
    tuned = Job(job.row, recipe.seeds[0], job.share, tunes=True)
    options = read_json(tuned.record(out))["options"] if row.tune else row.options
    material = ground.material(recipe, job.share, job.seed, out / SHARED, progress)
    recommender = RECOMMENDERS[row.system].from_options(options).fit(material)
    return Fit(recommender, time.perf_counter() - began), options


def _rank(
    recipe: Recipe, ground: ExperimentData, out: Path, job: Job, fit: Fit, options: dict[str, Any], began: float
) -> None:
    """Rank the test cases of every setting and write the files of a row with one seed."""
    frames: list[pl.DataFrame] = []
    settings: dict[str, dict[str, Any]] = {}
    hashes = ground.candidates()
    for setting, cases in ground.cases.items():
        ranks, seconds = target_ranks_of(job.row, fit.scorer, table_name(setting, job.share), cases)
        frames.append(
            pl.DataFrame({SETTING: [setting] * len(ranks), USER: cases[USER], RANK: ranks.astype(np.float64)})
        )
        about = str(getattr(fit.scorer, "about", ""))
        settings[setting] = {"candidates": hashes[setting], "seconds_per_user": seconds, "about": about}
    job.record(out).unlink(missing_ok=True)
    with new_file(_ranks_file(out, job)) as temporary:
        pl.concat(frames).write_parquet(temporary, compression="zstd")
    found = {"options": options, "fit_seconds": fit.seconds, "settings": settings}
    _write_record(recipe, out, job, found, began)


def _write_record(recipe: Recipe, out: Path, job: Job, found: dict[str, Any], began: float) -> None:
    """Write what was found, and what it was made from and took."""
    spent = {"seconds": time.perf_counter() - began, "peak_mib": _peak_mib(job)}
    record = {"made_from": job.made_from(recipe), "versions": versions(), **found, **spent}
    write_json(job.record(out), record)


def read_ranks(out: Path, job: Job, setting: str) -> np.ndarray:
    """Ranks of the right item, (cases,), in the order of the cases."""
    ranks = pl.read_parquet(_ranks_file(out, job)).filter(pl.col(SETTING) == setting)
    return ranks[RANK].to_numpy()


def _ranks_file(out: Path, job: Job) -> Path:
    return out / ROWS / f"{job.name}.parquet"


def _peak_mib(job: Job) -> float | None:
    """The largest resident memory of this process so far; None for baselines, which have none of their own."""
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

"""The table of an experiment: figures over seeds, from the ranks that the rows left."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from lorarec.data import USER
from lorarec.errors import LorarecError
from lorarec.evaluation import METRIC_NAMES, Evaluation, RowResult, SettingResult, metric_results, metrics_per_case
from lorarec.experiments.experiment_data import SEED, ExperimentData
from lorarec.experiments.job import Job, read_ranks
from lorarec.experiments.recipe import Recipe, table_name
from lorarec.io import read_json, versions

BEST_OTHER = "the best other row by NDCG@1"


@dataclass(frozen=True)
class Cost:
    """What a row took, as means over its seeds.

    Attributes:
        seeds: that it was fitted with.
        failed_seeds: with which it could not be fitted.
        fit_seconds: of fitting; without adapters and pre-trained weights that were there already.
        peak_mib: the largest resident memory of its process, libraries and data included; None for baselines.
        options: that it was fitted with, tuned ones included.
        trials: of tuning, the best first.
    """

    seeds: list[int]
    failed_seeds: list[int]
    fit_seconds: float
    peak_mib: float | None
    options: dict[str, Any]
    trials: list[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """What an experiment found.

    Attributes:
        evaluation: figures by table (a setting, with few-shot shares as in `warm 10%`) and row.
        costs: table -> row -> what it took.
        failed: name of a row and seed -> why.
        recipe: what was asked for.
    """

    evaluation: Evaluation
    costs: dict[str, dict[str, Cost]]
    failed: dict[str, str]
    recipe: Recipe

    def as_dict(self) -> dict[str, Any]:
        """What table.json holds."""
        found = self.evaluation.as_dict()
        for name, table in found["settings"].items():
            for row, cells in table["rows"].items():
                cells |= asdict(self.costs[name][row])
                cells["paper"] = self.recipe.paper.get(row, {}).get(name)
        return {**found, "source": self.recipe.source, "failed": self.failed}


def filled_table(
    recipe: Recipe, ground: ExperimentData, out: Path, jobs: Sequence[Job], failed: Mapping[Job, str]
) -> Table:
    """The table from the files of the jobs that did not fail.

    Raises:
        LorarecError: a row ranked other candidate sets.
    """
    records = {job: read_json(job.record(out)) for job in jobs if job not in failed}
    hashes = ground.candidates()
    settings: dict[str, SettingResult] = {}
    costs: dict[str, dict[str, Cost]] = {}
    for share in recipe.shares:
        of_share = [job for job in records if job.share == share]
        by_row = {job.row: [each for each in of_share if each.row == job.row] for job in of_share}
        by_row = {row: by_row[row] for row in dict.fromkeys(job.row for job in jobs) if row in by_row}
        for setting, cases in ground.cases.items():
            for job in of_share:
                if records[job]["settings"][setting]["candidates"] != hashes[setting]:
                    raise LorarecError(f"row {job.name} ranked other candidate sets of {setting}: delete its files")
            name = table_name(setting, share)
            ranks = {row: np.stack([read_ranks(out, job, setting) for job in of]) for row, of in by_row.items()}
            values = {row: np.mean([metrics_per_case(each) for each in of], axis=0) for row, of in ranks.items()}
            others = {row: recipe.compare_with or best_other(row, values) for row in values}
            known = {row: other if other in values and other != row else None for row, other in others.items()}
            figures = metric_results(values, known, SEED)
            rows = {
                row: RowResult(
                    row,
                    ranks[row],
                    figures[row],
                    float(np.mean([records[job]["settings"][setting]["seconds_per_user"] for job in by_row[row]])),
                    records[by_row[row][0]]["settings"][setting]["about"],
                )
                for row in values
            }
            users, compared = cases[USER].n_unique(), recipe.compare_with or BEST_OTHER
            settings[name] = SettingResult(name, cases.height, users, hashes[setting], compared, rows)
            costs[name] = {
                row: _cost(recipe, out, of, [job.seed for job in failed if (job.row, job.share) == (row, share)])
                for row, of in by_row.items()
            }
    spent = sum(read_json(path)["seconds"] for path in _finished(recipe, out, records)) / 3600
    protocol = {
        **{key: value for key, value in ground.identity(recipe).items() if key not in ("settings", "candidates")},
        "seeds": recipe.seeds,
        "limit": recipe.users,
        "seed": SEED,
        "versions": versions(),
        "hardware": hardware(),
        "hours": spent,
    }
    return Table(Evaluation(protocol, settings), costs, {job.name: why for job, why in failed.items()}, recipe)


def best_other(row: str, values: Mapping[str, np.ndarray]) -> str:
    """The best row by NDCG@1 but for this one; values as `metrics_per_case` gives them."""
    place = METRIC_NAMES.index("ndcg@1")
    return max((other for other in values if other != row), key=lambda other: values[other][:, place].mean())


def hardware() -> dict[str, Any]:
    """Cores that this process may use, memory, and the GPU if there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cores": cores, "memory_gib": round(memory, 1), "gpu": gpu}


def _tuned(recipe: Recipe, out: Path, job: Job) -> Path | None:
    """The record of the row's trials, where it has any."""
    if job.row not in recipe.rows or not recipe.rows[job.row].tune:
        return None
    return Job(job.row, recipe.seeds[0], job.share, tunes=True).record(out)


def _finished(recipe: Recipe, out: Path, jobs: Mapping[Job, Any]) -> set[Path]:
    tuned = {path for job in jobs if (path := _tuned(recipe, out, job))}
    return tuned | {job.record(out) for job in jobs}


def _cost(recipe: Recipe, out: Path, jobs: Sequence[Job], failed_seeds: list[int]) -> Cost:
    records = [read_json(job.record(out)) for job in jobs]
    tuned = _tuned(recipe, out, jobs[0])
    peaks = [record["peak_mib"] for record in records]
    return Cost(
        [job.seed for job in jobs],
        failed_seeds,
        float(np.mean([record["fit_seconds"] for record in records])),
        None if None in peaks else max(peaks),
        records[0]["options"],
        [] if tuned is None else read_json(tuned)["trials"],
    )

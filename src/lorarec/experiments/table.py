"""The table of an experiment: metrics over seeds, from the ranks in the files of finished jobs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lorarec.data import USER
from lorarec.errors import LorarecError
from lorarec.evaluation import (
    MAIN_METRIC,
    METRICS_OF,
    Evaluation,
    RowResult,
    SettingResult,
    correct_rows,
    metric_results,
    metrics_per_case,
)
from lorarec.experiments.experiment_data import SEED, ExperimentData
from lorarec.experiments.job import Job, read_ranks
from lorarec.experiments.recipe import Recipe, table_name
from lorarec.io import JsonObject, read_json

#: Metrics of the table in table.md; others are left to table.json.
TABLE_METRICS = ("ndcg@1", "ndcg@3", "ndcg@10", "hr@10", "mrr")


@dataclass(frozen=True)
class Cost:
    """Cost of a row over its seeds.

    Attributes:
        seeds: Seeds that the row was fitted with.
        failed_seeds: Seeds with which fitting failed.
        fit_seconds: Mean time of fitting in seconds, without adapters and pre-trained weights that existed already.
        peak_mib: Largest resident memory of the row's process in MiB, libraries and data included; None for baselines.
        options: Options that the row was fitted with, tuned ones included.
        trials: Trials of tuning, the best first.
    """

    seeds: list[int]
    failed_seeds: list[int]
    fit_seconds: float
    peak_mib: float | None
    options: JsonObject
    trials: list[JsonObject]


@dataclass(frozen=True)
class ExperimentTable:
    """Results of an experiment.

    Attributes:
        evaluation: Metrics by table (a setting, with few-shot shares as in `warm 10%`) and row.
        costs: Cost by table and row.
        failed: Reason of failure by name of the job.
        recipe: Recipe of the experiment.
    """

    evaluation: Evaluation
    costs: dict[str, dict[str, Cost]]
    failed: dict[str, str]
    recipe: Recipe

    def as_dict(self) -> JsonObject:
        """Return plain values, as table.json holds them."""
        values = self.evaluation.as_dict()
        for name, table in values["settings"].items():
            for row, cells in table["rows"].items():
                cells |= asdict(self.costs[name][row])
                cells["paper"] = self.recipe.paper.get(row, {}).get(name)
        return {**values, "source": self.recipe.source, "failed": self.failed}


def build_table(
    recipe: Recipe, data: ExperimentData, out: Path, jobs: Sequence[Job], failed: Mapping[Job, str]
) -> ExperimentTable:
    """Build the table from the files of the jobs that did not fail.

    Raises:
        LorarecError: A row ranked other candidate sets.
    """
    records = {job: read_json(job.record(out)) for job in jobs if job not in failed}
    settings: dict[str, SettingResult] = {}
    costs: dict[str, dict[str, Cost]] = {}
    for share in recipe.shares:
        with_share = [job for job in records if job.share == share]
        names = dict.fromkeys(job.row for job in jobs if job.row in {each.row for each in with_share})
        by_row = {row: [job for job in with_share if job.row == row] for row in names}
        for setting in data.cases:
            name = table_name(setting, share)
            settings[name] = _setting_result(recipe, data, out, setting, name, by_row, records)
            costs[name] = {
                row: _cost(recipe, out, of, [job.seed for job in failed if (job.row, job.share) == (row, share)])
                for row, of in by_row.items()
            }
    protocol = {
        **{key: value for key, value in data.identity(recipe).items() if key not in ("settings", "candidates")},
        "seeds": recipe.seeds,
        "candidates": recipe.candidates,
        "limit": recipe.users,
        "seed": SEED,
        "versions": _distinct(record["versions"] for record in records.values()),
        # Rows of earlier versions did not record it: None.
        "hardware": _distinct(record.get("hardware") for record in records.values()),
        "hours": sum(read_json(path)["seconds"] for path in _record_files(recipe, out, records)) / 3600,
    }
    reasons = {job.name: reason for job, reason in failed.items()}
    return ExperimentTable(Evaluation(protocol, settings), costs, reasons, recipe)


def _setting_result(
    recipe: Recipe,
    data: ExperimentData,
    out: Path,
    setting: str,
    name: str,
    by_row: Mapping[str, Sequence[Job]],
    records: Mapping[Job, JsonObject],
) -> SettingResult:
    """Return the results of one table; its metrics are means over the seeds of each row."""
    cases, hashed = data.cases[setting], data.candidates()[setting]
    results = {job: records[job]["settings"][setting] for jobs in by_row.values() for job in jobs}
    for job, about in results.items():
        if about["candidates"] != hashed:
            raise LorarecError(f"row {job.name} ranked other candidate sets of {setting}: delete its files")
    ranks = {row: np.stack([read_ranks(out, job, setting) for job in jobs]) for row, jobs in by_row.items()}
    names, main = METRICS_OF[recipe.candidates], MAIN_METRIC[recipe.candidates]
    values = {row: np.mean([metrics_per_case(each, names) for each in of], axis=0) for row, of in ranks.items()}
    others = {row: recipe.compare_with or _best_other(row, values, names.index(main)) for row in values}
    compared = {row: other if other in values and other != row else None for row, other in others.items()}
    metrics = correct_rows(metric_results(values, compared, SEED, names), table_metrics(recipe), recipe.correction)
    rows = {
        row: RowResult(
            row,
            ranks[row],
            metrics[row],
            float(np.mean([results[job]["seconds_per_user"] for job in jobs])),
            results[jobs[0]]["about"],
            _mean_properties([results[job].get("properties", {}) for job in jobs]),
        )
        for row, jobs in by_row.items()
    }
    compare_with = recipe.compare_with or f"the best other row by {main.upper()}"
    users, catalogue = cases[USER].n_unique(), None if data.catalogue is None else len(data.catalogue.items)
    repeats = data.repeats.get(setting, 0)
    return SettingResult(name, cases.height, users, hashed, compare_with, rows, recipe.correction, catalogue, repeats)


def table_metrics(recipe: Recipe) -> tuple[str, ...]:
    """Return the metrics of the table in table.md; others are left to table.json."""
    return TABLE_METRICS if recipe.candidates == "stored" else METRICS_OF[recipe.candidates]


def _mean_properties(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each property over the seeds in which the row shows anything."""
    shown = [properties for properties in seeds if properties]
    return {name: float(np.mean([properties[name] for properties in shown])) for name in (shown[0] if shown else ())}


def _best_other(row: str, values: Mapping[str, np.ndarray], column: int) -> str:
    """Return the best row by a metric except for this one; values as `metrics_per_case` returns them."""
    return max((other for other in values if other != row), key=lambda other: values[other][:, column].mean())


def _distinct(values: Iterable[JsonObject | None]) -> list[JsonObject | None]:
    """Return each value once, in the order of first occurrence: rows may have been fitted on several machines."""
    found: list[JsonObject | None] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _tuning_record(recipe: Recipe, out: Path, job: Job) -> Path | None:
    """Return the record of the row's trials; None if the row is not tuned."""
    if job.row not in recipe.rows or not recipe.rows[job.row].tune:
        return None
    return Job(job.row, recipe.seeds[0], job.share, tunes=True).record(out)


def _record_files(recipe: Recipe, out: Path, jobs: Iterable[Job]) -> set[Path]:
    jobs = list(jobs)
    tuned = {path for job in jobs if (path := _tuning_record(recipe, out, job))}
    return tuned | {job.record(out) for job in jobs}


def _cost(recipe: Recipe, out: Path, jobs: Sequence[Job], failed_seeds: list[int]) -> Cost:
    records = [read_json(job.record(out)) for job in jobs]
    tuned = _tuning_record(recipe, out, jobs[0])
    peaks = [record["peak_mib"] for record in records]
    return Cost(
        [job.seed for job in jobs],
        failed_seeds,
        float(np.mean([record["fit_seconds"] for record in records])),
        None if None in peaks else max(peaks),
        records[0]["options"],
        [] if tuned is None else read_json(tuned)["trials"],
    )

"""Ranking experiments, from recipe to table; finished jobs are skipped."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from lorarec.errors import LorarecError
from lorarec.evaluation import PICTURE
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.experiment_dir import open_experiment_dir
from lorarec.experiments.job import ROWS, Job, job_figures, run_job, run_job_in_process
from lorarec.experiments.recipe import Recipe
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.experiments.report import write_table
from lorarec.experiments.row_checks import check_models, refuse_unusable_data, rows_with_models
from lorarec.experiments.table import ExperimentTable, build_table
from lorarec.experiments.tracking import report_run
from lorarec.experiments.workers import ProcessWorkers, Workers, run_rows
from lorarec.io import JsonObject, read_json
from lorarec.recommenders import BASELINES
from lorarec.training import TrackingConfig

#: Name of the run that trackers get of the whole table.
TABLE = "table"


def run_experiment(
    recipe: Recipe,
    out: str | Path,
    *,
    workers: Workers | None = None,
    tracking: TrackingConfig | None = None,
    console: Console | None = None,
    progress: bool = False,
) -> ExperimentTable:
    """Fit and rank every row with every seed, each in a process of its own, and write the table.

    `out` gets a record and the ranks of every row and seed in `rows/`, adapters in `artefacts/`, the recipe, and the
    table as `table.md`, `table.json` and `ndcg.png`. A second run does only what is missing, or was made from another
    row of the recipe or by another version of its system (`Recommender.version`). A row that fails is left out of the
    table and named there.

    Args:
        out: Folder of the experiment.
        workers: Place where jobs run, and how many at a time: `ProcessWorkers` with one process by default, or
            `RayWorkers`.
        tracking: Trackers that get a run for each row and seed when it is done: its options, the mean metrics of its
            test cases, the weights of a mixture and its costs; and a run `table` with the picture. The defaults of
            `TrackingConfig` if None. A run that a tracker has already is not written again.
        console: Console that gets a line about each job.
        progress: Show the progress of each job in place of the number of jobs that are done.

    Raises:
        LorarecError: The data or the models that rows read are unusable, or `out` belongs to another experiment. No
            row is fitted then.
    """
    out, console, workers = Path(out), console or Console(quiet=True), workers or ProcessWorkers()
    data = ExperimentData.load(recipe)
    refuse_unusable_data(recipe, data)
    _check_models(recipe, out, workers)
    open_experiment_dir(out, data.identity(recipe), recipe.as_dict())
    (out / ROWS).mkdir(exist_ok=True)
    tracking = tracking or TrackingConfig()

    def report(job: Job) -> None:
        if not job.tunes:
            report_run(tracking, out, job.name, _shown_options(recipe, data, out, job), job_figures(recipe, out, job))

    baselines = [Job(name, recipe.seeds[0], share) for share in recipe.shares for name in BASELINES]
    for job in baselines:
        if not job.is_done(recipe, out):
            run_job(recipe, data, out, job, progress)
        report(job)
    tunes = [
        Job(name, recipe.seeds[0], share, tunes=True)
        for share in recipe.shares
        for name, row in recipe.rows.items()
        if row.tune
    ]
    failed = _run_jobs(recipe, out, tunes, workers, report, console, progress)
    untuned = {(job.row, job.share): reason for job, reason in failed.items()}
    rows = row_jobs(recipe)
    possible = [job for job in rows if (job.row, job.share) not in untuned]
    failed = _run_jobs(recipe, out, possible, workers, report, console, progress)
    failed |= {job: untuned[job.row, job.share] for job in rows if (job.row, job.share) in untuned}
    table = build_table(recipe, data, out, [*baselines, *rows], failed)
    write_table(table, out)
    counts = {"rows": len([*baselines, *rows]) - len(failed), "failed": len(failed)}
    report_run(tracking, out, TABLE, {"dataset": data.dataset.name}, counts, [out / PICTURE])
    return table


def _check_models(recipe: Recipe, out: Path, workers: Workers) -> None:
    """Refuse models that rows which are not done cannot read, where the rows will be fitted."""
    rows = rows_with_models(recipe)
    missing = list(
        dict.fromkeys(job.row for job in row_jobs(recipe) if job.row in rows and not job.is_done(recipe, out))
    )
    if missing and (reason := workers.run(check_models, recipe, missing, workers.threads)) is not None:
        raise LorarecError(reason)


def _shown_options(recipe: Recipe, data: ExperimentData, out: Path, job: Job) -> JsonObject:
    """Return what trackers show of a finished job: its options, tuned ones included, and its data."""
    made_from = job.made_from(recipe)
    options = made_from["options"] | read_json(job.record(out))["options"]
    about = {"row": job.row, "system": made_from["system"], "seed": job.seed, "few_shot": job.share}
    return {**options, **about, "dataset": data.dataset.name, "candidates": recipe.candidates}


def row_jobs(recipe: Recipe) -> list[Job]:
    """Return the jobs of every row with every seed; rows that draw nothing have the first seed alone."""
    return [
        Job(name, seed, share)
        for share in recipe.shares
        for seed in recipe.seeds
        for name, row in recipe.rows.items()
        if seed == recipe.seeds[0] or RECOMMENDERS[row.system].uses_seed
    ]


def _run_jobs(
    recipe: Recipe,
    out: Path,
    jobs: Sequence[Job],
    workers: Workers,
    report: Callable[[Job], None],
    console: Console,
    progress: bool,
) -> dict[Job, str]:
    """Run the jobs that are not done, several at a time, and report each that is done; return why others failed."""
    missing = [job for job in jobs if not job.is_done(recipe, out)]
    for job in jobs:
        if job not in missing:
            console.print(f"{job.name}: done before", markup=False)
            report(job)
        elif job.record(out).exists():
            console.print(f"{job.name}: done again, its record has other options or another version", markup=False)
    by_name = {job.name: job for job in missing}

    def finish(name: str, reason: str | None) -> str:
        if reason is None:
            report(by_name[name])
        return _describe(out, by_name[name], reason)

    calls = {name: (recipe, out, job) for name, job in by_name.items()}
    failed = run_rows(workers, run_job_in_process, calls, finish, console, progress)
    return {by_name[name]: reason for name, reason in failed.items()}


def _describe(out: Path, job: Job, reason: str | None) -> str:
    """Return a description of a finished job: the reason of its failure, or its cost."""
    if reason is not None:
        return f"failed: {reason}"
    record = read_json(job.record(out))
    best = f"NDCG@10 {record['trials'][0]['ndcg@10']:.3f} on validation, " if job.tunes else ""
    return f"{best}{record['seconds']:.1f} s, {record['peak_mib']:,.0f} MiB"

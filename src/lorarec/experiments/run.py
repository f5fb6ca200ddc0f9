"""Ranking experiments, from recipe to table; finished jobs are skipped."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console

from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.experiment_dir import open_experiment_dir
from lorarec.experiments.job import ROWS, Job, run_job, run_job_in_process
from lorarec.experiments.recipe import Recipe
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.experiments.report import write_table
from lorarec.experiments.table import ExperimentTable, build_table
from lorarec.experiments.workers import ProcessWorkers, Workers
from lorarec.io import Progress, read_json
from lorarec.recommenders import BASELINES


def run_experiment(
    recipe: Recipe,
    out: str | Path,
    *,
    workers: Workers | None = None,
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
        console: Console that gets a line about each job.
        progress: Show the progress of each job in place of the number of jobs that are done.

    Raises:
        LorarecError: The data are unusable, or `out` belongs to another experiment.
    """
    out, console, workers = Path(out), console or Console(quiet=True), workers or ProcessWorkers()
    data = ExperimentData.load(recipe)
    open_experiment_dir(out, data.identity(recipe), recipe.as_dict())
    (out / ROWS).mkdir(exist_ok=True)
    baselines = [Job(name, recipe.seeds[0], share) for share in recipe.shares for name in BASELINES]
    for job in baselines:
        if not job.is_done(recipe, out):
            run_job(recipe, data, out, job, progress)
    tunes = [
        Job(name, recipe.seeds[0], share, tunes=True)
        for share in recipe.shares
        for name, row in recipe.rows.items()
        if row.tune
    ]
    failed = _run_jobs(recipe, out, tunes, workers, console, progress)
    untuned = {(job.row, job.share): reason for job, reason in failed.items()}
    rows = row_jobs(recipe)
    possible = [job for job in rows if (job.row, job.share) not in untuned]
    failed = _run_jobs(recipe, out, possible, workers, console, progress)
    failed |= {job: untuned[job.row, job.share] for job in rows if (job.row, job.share) in untuned}
    table = build_table(recipe, data, out, [*baselines, *rows], failed)
    write_table(table, out)
    return table


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
    recipe: Recipe, out: Path, jobs: Sequence[Job], workers: Workers, console: Console, progress: bool
) -> dict[Job, str]:
    """Run the jobs that are not done, several at a time; return those that failed with the reasons."""
    missing = [job for job in jobs if not job.is_done(recipe, out)]
    for job in jobs:
        if job not in missing:
            console.print(f"{job.name}: done before", markup=False)
        elif job.record(out).exists():
            console.print(f"{job.name}: done again, its record has other options or another version", markup=False)
    failed: dict[Job, str] = {}
    pool = ThreadPoolExecutor(workers.count)
    try:
        running: dict[Future[str | None], Job] = {
            pool.submit(workers.run, run_job_in_process, recipe, out, job, workers.threads, progress): job
            for job in missing
        }
        with Progress("Rows of the table", len(missing), enabled=not (progress or console.quiet)) as bar:
            for count, future in enumerate(as_completed(running), 1):
                job, reason = running[future], future.result()
                if reason is not None:
                    failed[job] = reason
                console.print(f"[{count}/{len(missing)}] {job.name}: {_describe(out, job, reason)}", markup=False)
                bar.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _describe(out: Path, job: Job, reason: str | None) -> str:
    """Return a description of a finished job: the reason of its failure, or its cost."""
    if reason is not None:
        return f"failed: {reason}"
    record = read_json(job.record(out))
    best = f"NDCG@10 {record['trials'][0]['ndcg@10']:.3f} on validation, " if job.tunes else ""
    return f"{best}{record['seconds']:.1f} s, {record['peak_mib']:,.0f} MiB"

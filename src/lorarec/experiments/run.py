"""An experiment from its recipe to its table; what is done already is kept."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console

from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.job import ROWS, Job, run, run_in_process
from lorarec.experiments.recipe import Recipe
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.experiments.report import write_table
from lorarec.experiments.run_dir import init_run_dir
from lorarec.experiments.table import Table, filled_table
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
) -> Table:
    """Fit and rank every row with every seed, each in a process of its own, and write the table.

    `out` gets a record and the ranks of every row and seed in `rows/`, adapters in `artefacts/`, the recipe, and the
    table as `table.md`, `table.json` and `ndcg.png`. Run again, it does only what is missing, or what was made from
    another row of the recipe. A row that fails is left out of the table and named there.

    Args:
        workers: where rows are fitted and how many side by side: one process here without it, `ProcessWorkers`, or
            `RayWorkers` of `lorarec.experiments.ray_workers`.
        console: is told of each row that is done.
        progress: show how far each row is, in place of how many are done.

    Raises:
        LorarecError: unusable data, or `out` belongs to another experiment.
    """
    out, console, workers = Path(out), console or Console(quiet=True), workers or ProcessWorkers()
    ground = ExperimentData.load(recipe)
    init_run_dir(out, ground.identity(recipe), recipe.as_dict())
    (out / ROWS).mkdir(exist_ok=True)
    baselines = [Job(name, recipe.seeds[0], share) for share in recipe.shares for name in BASELINES]
    for job in baselines:
        if not job.done(recipe, out):
            run(recipe, ground, out, job, progress)
    tunes = [
        Job(name, recipe.seeds[0], share, tunes=True)
        for share in recipe.shares
        for name, row in recipe.rows.items()
        if row.tune
    ]
    failed = _side_by_side(recipe, out, tunes, workers, console, progress)
    untuned = {(job.row, job.share): why for job, why in failed.items()}
    rows = row_jobs(recipe)
    possible = [job for job in rows if (job.row, job.share) not in untuned]
    failed = _side_by_side(recipe, out, possible, workers, console, progress)
    failed |= {job: untuned[job.row, job.share] for job in rows if (job.row, job.share) in untuned}
    table = filled_table(recipe, ground, out, [*baselines, *rows], failed)
    write_table(table, out)
    return table


def row_jobs(recipe: Recipe) -> list[Job]:
    """Every row with every seed; those that draw nothing with the first alone."""
    return [
        Job(name, seed, share)
        for share in recipe.shares
        for seed in recipe.seeds
        for name, row in recipe.rows.items()
        if seed == recipe.seeds[0] or RECOMMENDERS[row.system].uses_seed
    ]


def _side_by_side(
    recipe: Recipe, out: Path, jobs: Sequence[Job], workers: Workers, console: Console, progress: bool
) -> dict[Job, str]:
    """Do the jobs that are not done; those that failed, and why."""
    missing = [job for job in jobs if not job.done(recipe, out)]
    for job in jobs:
        if job not in missing:
            console.print(f"{job.name}: done before", markup=False)
    failed: dict[Job, str] = {}
    pool = ThreadPoolExecutor(workers.count)
    try:
        running: dict[Future[str | None], Job] = {
            pool.submit(workers.do, run_in_process, recipe, out, job, workers.threads, progress): job for job in missing
        }
        with Progress("Rows of the table", len(missing), shown=not (progress or console.quiet)) as shown:
            for count, future in enumerate(as_completed(running), 1):
                job, why = running[future], future.result()
                if why is not None:
                    failed[job] = why
                console.print(f"[{count}/{len(missing)}] {job.name}: {_told(out, job, why)}", markup=False)
                shown.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _told(out: Path, job: Job, why: str | None) -> str:
    if why is not None:
        return f"failed: {why}"
    record: dict[str, Any] = read_json(job.record(out))
    best = f"NDCG@10 {record['trials'][0]['ndcg@10']:.3f} on validation, " if job.tunes else ""
    return f"{best}{record['seconds']:.1f} s, {record['peak_mib']:,.0f} MiB"

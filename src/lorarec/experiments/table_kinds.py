"""Kinds of experiments that a recipe may ask for with its key `table`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lorarec.errors import LorarecError
from lorarec.evaluation import evaluation_table
from lorarec.experiments.click_tables.recipe import CLICKS, read_clicks
from lorarec.experiments.click_tables.report import main_table
from lorarec.experiments.click_tables.run import run_clicks
from lorarec.experiments.recipe import read_experiment
from lorarec.experiments.recipe_keys import RANKING, TABLE, read_table_kind
from lorarec.experiments.run import run_experiment
from lorarec.experiments.weight_figures.recipe import WEIGHTS, read_weights
from lorarec.experiments.weight_figures.run import VARIANTS, run_weights, variants_table
from lorarec.experiments.workers import ProcessWorkers, Workers
from lorarec.io import JsonObject
from lorarec.training import TrackingConfig


@dataclass(frozen=True)
class RecipeResult:
    """Results of an experiment of any kind.

    Attributes:
        values: Results as plain values.
        tables: Results as tables for a terminal.
        report: Path of the file that a reader opens first.
        failed: Reason of failure by name of the row and seed.
    """

    values: JsonObject
    tables: list[Table]
    report: Path
    failed: dict[str, str]


def run_recipe(
    path: str | Path,
    out: str | Path,
    *,
    workers: Workers | None = None,
    tracking: TrackingConfig | None = None,
    console: Console | None = None,
    progress: bool = False,
) -> RecipeResult:
    """Run the experiment of a recipe of any kind; finished parts are skipped.

    Args:
        path: Path of the recipe.
        out: Folder of the results; the folder of the same experiment is continued.
        workers: Place where rows are fitted, and how many at a time: `ProcessWorkers` with one process by default, or
            `RayWorkers`. A recipe with `table: weights` always runs in this process.
        tracking: Trackers that get a run for each row that is done; with `table: weights`, one run. The defaults of
            `TrackingConfig` if None.
        console: Console that gets a line about each part that is done.
        progress: Show progress bars.

    Raises:
        LorarecError: The recipe is unusable, with the key in the message, the data are unusable, or `out` belongs to
            another experiment.
    """
    kind = read_table_kind(path)
    if kind not in TABLE_KINDS:
        raise LorarecError(f"recipe {path}, key {TABLE}: must be one of {', '.join(TABLE_KINDS)}, got {kind!r}")
    setup = _Setup(workers or ProcessWorkers(), tracking or TrackingConfig(), console or Console(quiet=True), progress)
    return TABLE_KINDS[kind](path, Path(out), setup)


@dataclass(frozen=True)
class _Setup:
    """What experiments of all kinds run with."""

    workers: Workers
    tracking: TrackingConfig
    console: Console
    progress: bool


def _run_ranking(path: str | Path, out: Path, setup: _Setup) -> RecipeResult:
    table = run_experiment(read_experiment(path), out, **vars(setup))
    tables = [evaluation_table(table.evaluation, name) for name in table.evaluation.settings]
    return RecipeResult(table.as_dict(), tables, out / "table.md", table.failed)


def _run_clicks(path: str | Path, out: Path, setup: _Setup) -> RecipeResult:
    values = run_clicks(read_clicks(path), out, **vars(setup))
    return RecipeResult(values, [main_table(values)], out / "tables.md", values["failed"])


def _run_weights(path: str | Path, out: Path, setup: _Setup) -> RecipeResult:
    recipe, progress = read_weights(path), setup.progress
    values = run_weights(recipe, out, tracking=setup.tracking, console=setup.console, progress=progress)
    tables = [variants_table(*each) for each in values["variants"].items()]
    return RecipeResult(values, tables, out / VARIANTS, {})


TABLE_KINDS: dict[str, Callable[[str | Path, Path, _Setup], RecipeResult]] = {
    RANKING: _run_ranking,
    CLICKS: _run_clicks,
    WEIGHTS: _run_weights,
}

"""The kinds of tables that a recipe may ask for, by what its key `table` says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lorarec.errors import LorarecError
from lorarec.evaluation import evaluation_table
from lorarec.experiments.click_tables.recipe import CLICKS, read_clicks
from lorarec.experiments.click_tables.report import main_table
from lorarec.experiments.click_tables.run import run_clicks
from lorarec.experiments.recipe import read_experiment
from lorarec.experiments.recipe_keys import RANKING, TABLE, read_table
from lorarec.experiments.run import run_experiment
from lorarec.experiments.weight_figures.recipe import WEIGHTS, read_weights
from lorarec.experiments.weight_figures.run import VARIANTS, run_weights, variants_table
from lorarec.experiments.workers import ProcessWorkers, Workers


@dataclass(frozen=True)
class RecipeResult:
    """What an experiment found.

    Attributes:
        figures: plain values.
        shown: the same for a terminal.
        path: the file to look at first.
        failed: name of a row and seed -> why.
    """

    figures: dict[str, Any]
    shown: list[Table]
    path: Path
    failed: dict[str, str]


def run_recipe(
    path: str | Path,
    out: str | Path,
    *,
    workers: Workers | None = None,
    console: Console | None = None,
    progress: bool = False,
) -> RecipeResult:
    """Fill the table or draw the figures that a recipe of any kind asks for; what is done already is kept.

    Args:
        path: the recipe.
        out: folder for all that is made; one of the same experiment goes on.
        workers: where rows are done and how many side by side: one process here without it, `ProcessWorkers`, or
            `RayWorkers` of `lorarec.experiments.ray_workers`; figures of `table: weights` are always drawn in this
            process.
        console: is told of all that is done.
        progress: show bars.

    Raises:
        LorarecError: an unusable recipe, named with its key, unusable data, or `out` belongs to another experiment.
    """
    kind = read_table(path)
    if kind not in KINDS:
        raise LorarecError(f"recipe {path}, key {TABLE}: must be one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind](path, Path(out), workers or ProcessWorkers(), console or Console(quiet=True), progress)


def _ranking(path: str | Path, out: Path, workers: Workers, console: Console, progress: bool) -> RecipeResult:
    table = run_experiment(read_experiment(path), out, workers=workers, console=console, progress=progress)
    shown = [evaluation_table(table.evaluation, name) for name in table.evaluation.settings]
    return RecipeResult(table.as_dict(), shown, out / "table.md", table.failed)


def _clicks(path: str | Path, out: Path, workers: Workers, console: Console, progress: bool) -> RecipeResult:
    tables = run_clicks(read_clicks(path), out, workers=workers, console=console, progress=progress)
    return RecipeResult(tables, [main_table(tables)], out / "tables.md", tables["failed"])


def _weights(path: str | Path, out: Path, workers: Workers, console: Console, progress: bool) -> RecipeResult:
    found = run_weights(read_weights(path), out, console=console, progress=progress)
    return RecipeResult(found, [variants_table(*each) for each in found["variants"].items()], out / VARIANTS, {})


KINDS: dict[str, Callable[[str | Path, Path, Workers, Console, bool], RecipeResult]] = {
    RANKING: _ranking,
    CLICKS: _clicks,
    WEIGHTS: _weights,
}

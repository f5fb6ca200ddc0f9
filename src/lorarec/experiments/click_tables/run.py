"""RecLoRA's tables from their recipe; rows that are done already are kept."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from lorarec.experiments.click_tables.plots import analyses_picture, main_picture
from lorarec.experiments.click_tables.recipe import ClicksRecipe
from lorarec.experiments.click_tables.report import markdown
from lorarec.experiments.click_tables.rows import ClickRow
from lorarec.experiments.click_tables.summary import tables_of
from lorarec.experiments.click_tables.work import ROWS, do_row, record
from lorarec.experiments.experiment_data import load_named_dataset
from lorarec.experiments.run_dir import init_run_dir
from lorarec.experiments.workers import ProcessWorkers, Workers
from lorarec.io import Progress, new_file, read_json, write_json, write_text

SETTINGS = "settings.json"


def run_clicks(
    recipe: ClicksRecipe,
    out: str | Path,
    *,
    workers: Workers | None = None,
    console: Console | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Do every row that is missing, each in a process of its own, and write the tables.

    For each seed, conventional recommenders and CTR-BERT (two towers of texts) are trained on all training events;
    TALLRec (one LoRA, recent history), ReLLa (one LoRA, similar history) and RecLoRA on a sample of them, each alone
    and blended with the recommender. The analyses change one thing of RecLoRA with the first seed.

    A finished row is `rows/NAME.json` and `rows/NAME.parquet`; one that was stopped goes on where it was. Several
    processes may fill one folder: each row is done by one of them. Whatever is finished is summed up in
    `tables.json`, `tables.md`, `main.png` and `analyses.png`. A row that fails is named and left out.

    Args:
        workers: as of `lorarec.experiments.run_recipe`.
        console: is told of each row that is done.
        progress: show how far each row is, in place of how many are done.

    Returns:
        What tables.json holds (see `tables_of`).

    Raises:
        LorarecError: unusable data, or `out` belongs to another experiment.
    """
    out, console, workers = Path(out), console or Console(quiet=True), workers or ProcessWorkers()
    dataset = load_named_dataset(recipe.dataset)
    settings: dict[str, Any] = {"dataset": dataset.name, "fingerprint": dataset.fingerprint}
    settings |= {"backbone": recipe.backbone, "crm": recipe.crm}
    settings |= {"first_seed": recipe.seeds[0], "options": recipe.told}
    init_run_dir(out, settings, recipe.as_dict(), SETTINGS)
    (out / ROWS).mkdir(exist_ok=True)

    def done(row: ClickRow) -> str | None:
        if record(out, row.name).exists():
            console.print(f"{row.name}: done before", markup=False)
            shown.advance()
            return None
        why = workers.do(do_row, recipe, out, row, workers.threads, progress)
        console.print(f"{row.name}: {_told(out, row, why)}", markup=False)
        shown.advance()
        return why

    rows = recipe.every_row
    shown = Progress("Rows of the tables", len(rows), shown=not (progress or console.quiet))
    with ThreadPoolExecutor(workers.count) as pool, shown:
        told = dict(zip(rows, pool.map(done, rows.values()), strict=True))
    tables = tables_of(recipe, out, settings, {name: why for name, why in told.items() if why is not None})
    _write(out, tables, recipe)
    return tables


def _told(out: Path, row: ClickRow, why: str | None) -> str:
    if why is not None:
        return f"failed: {why}"
    if not record(out, row.name).exists():
        return "another process is at it"
    found = read_json(record(out, row.name))
    return f"AUC {found['figures']['auc']:.4f}, {found['seconds']:.1f} s"


def _write(out: Path, tables: dict[str, Any], recipe: ClicksRecipe) -> None:
    """Write the tables, the JSON last."""
    if tables["main"]:
        with new_file(out / "main.png") as path:
            main_picture(path, tables)
    if any(tables["analyses"].values()):
        with new_file(out / "analyses.png") as path:
            analyses_picture(path, tables, recipe.crm, recipe.seeds[0])
    write_text(out / "tables.md", markdown(tables, recipe.seeds[0]))
    write_json(out / "tables.json", tables)

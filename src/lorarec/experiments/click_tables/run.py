"""Experiments with RecLoRA's tables, from recipe to tables; finished rows are skipped."""

from pathlib import Path

from rich.console import Console

from lorarec.experiments.click_tables.plots import plot_analyses, plot_main_table
from lorarec.experiments.click_tables.recipe import ClicksRecipe
from lorarec.experiments.click_tables.report import markdown
from lorarec.experiments.click_tables.row_runner import ROWS, record_file, run_row_in_process
from lorarec.experiments.click_tables.rows import ClickRow
from lorarec.experiments.click_tables.summary import summarize_rows
from lorarec.experiments.experiment_data import backbone_name, load_named_dataset
from lorarec.experiments.experiment_dir import open_experiment_dir
from lorarec.experiments.tracking import report_run
from lorarec.experiments.workers import ProcessWorkers, Workers, run_rows
from lorarec.io import JsonObject, read_json, write_json, write_text
from lorarec.training import TrackingConfig

SETTINGS = "settings.json"


def run_clicks(
    recipe: ClicksRecipe,
    out: str | Path,
    *,
    workers: Workers | None = None,
    tracking: TrackingConfig | None = None,
    console: Console | None = None,
    progress: bool = False,
) -> JsonObject:
    """Fit every row that is missing, each in a process of its own, and write the tables.

    For each seed, click-through models and CTR-BERT (two towers of texts) are trained on all training events;
    TALLRec (one LoRA, recent history), ReLLa (one LoRA, similar history) and RecLoRA on a sample of them, each alone
    and blended with the recommender. Each analysis varies one option of RecLoRA with the first seed.

    The files of a finished row are `rows/NAME.json` and `rows/NAME.parquet`; a row that was stopped is resumed. Several
    processes may work on one folder: each row is done by one of them. All finished rows are summarized in
    `tables.json`, `tables.md`, `main.png` and `analyses.png`. A row that fails is named there and left out.

    Args:
        out: Folder of the experiment.
        workers: Place where rows are fitted, as in `lorarec.experiments.run_recipe`.
        tracking: Trackers that get a run for each row that is done: its options, metrics and time; and a run `tables`
            with the pictures. The defaults of `TrackingConfig` if None. A run that a tracker has already is not written
            again.
        console: Console that gets a line about each row.
        progress: Show the progress of each row in place of the number of rows that are done.

    Returns:
        The contents of tables.json (see `summarize_rows`).

    Raises:
        LorarecError: The data are unusable, or `out` belongs to another experiment.
    """
    out, console, workers = Path(out), console or Console(quiet=True), workers or ProcessWorkers()
    dataset = load_named_dataset(recipe.dataset)
    settings: JsonObject = {"dataset": dataset.name, "fingerprint": dataset.fingerprint}
    settings |= {"backbone": backbone_name(recipe.backbone, recipe.dtype), "ctr_model": recipe.ctr_model}
    settings |= {"first_seed": recipe.seeds[0], "options": recipe.shared_options}
    open_experiment_dir(out, settings, recipe.as_dict(), SETTINGS)
    (out / ROWS).mkdir(exist_ok=True)
    tracking = tracking or TrackingConfig()
    rows = recipe.every_row
    done = [name for name in rows if record_file(out, name).exists()]
    for name in done:
        console.print(f"{name}: done before", markup=False)
        _report(recipe, tracking, out, rows[name], settings)

    def finish(name: str, reason: str | None) -> str:
        if reason is None:
            _report(recipe, tracking, out, rows[name], settings)
        return _describe(out, name, reason)

    missing = {name: (recipe, out, row) for name, row in rows.items() if name not in done}
    failed = run_rows(workers, run_row_in_process, missing, finish, console, progress)
    tables = summarize_rows(recipe, out, settings, failed)
    _write(out, tables, recipe)
    counts = {"events": tables["events"], "failed": len(failed)}
    report_run(tracking, out, "tables", {"dataset": dataset.name}, counts, sorted(out.glob("*.png")))
    return tables


def _report(recipe: ClicksRecipe, tracking: TrackingConfig, out: Path, row: ClickRow, settings: JsonObject) -> None:
    """Write the run of a finished row, and of a LoRA also that of the row in which it is blended, into the trackers."""
    for name in (row.name, row.blended_name):
        if record_file(out, name).exists():
            record = read_json(record_file(out, name))
            shown = {**recipe.shared_options, **row.changed, "row": row.kind, "seed": row.seed}
            shown |= {key: settings[key] for key in ("dataset", "backbone", "ctr_model")}
            metrics = {f"test_{metric}": value for metric, value in record["figures"].items()}
            report_run(tracking, out, name, shown, {**metrics, "seconds": record["seconds"]})


def _describe(out: Path, row: str, reason: str | None) -> str:
    """Return a description of a row that was run: the reason of its failure, or its AUC."""
    if reason is not None:
        return f"failed: {reason}"
    if not record_file(out, row).exists():
        return "another process is fitting it"
    record = read_json(record_file(out, row))
    return f"AUC {record['figures']['auc']:.4f}, {record['seconds']:.1f} s"


def _write(out: Path, tables: JsonObject, recipe: ClicksRecipe) -> None:
    """Write the pictures and tables, the JSON last."""
    if tables["main"]:
        plot_main_table(out / "main.png", tables)
    if any(tables["analyses"].values()):
        plot_analyses(out / "analyses.png", tables, recipe.ctr_model, recipe.seeds[0])
    write_text(out / "tables.md", markdown(tables, recipe.seeds[0]))
    write_json(out / "tables.json", tables)

"""The verb `evaluate-clicks`: columns of click probabilities, compared."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lorarec.cli.options import AsJson, CorrectionOption, Overwrite, refuse_given
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, refuse_existing


def evaluate_clicks(
    context: typer.Context,
    predictions: Annotated[
        Path,
        typer.Argument(help="Parquet file, or a folder of `lorarec personal train`, for its predictions.parquet."),
    ],
    compare: Annotated[
        str | None, typer.Option(help="Row that the others are tested against; the last column if not given.")
    ] = None,
    correction: CorrectionOption = "holm",
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and report.md.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the intervals and of the test of ECE.")] = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Compare columns of click probabilities for the same events: AUC, LogLoss, ACC and ECE.

    The file has a column `label`, 1 for a click and 0 for none, and a column of probabilities for each row of the
    table, with the row's name. It may also have the columns user_id, item_id and timestamp.

    Example: lorarec evaluate-clicks personal/predictions.parquet --compare DIN --out reports/clicks
    """
    if not predictions.exists():
        raise LorarecError(f"{predictions} does not exist: give a Parquet file of predictions")
    if out is None:
        refuse_given(context, ("overwrite",), "without --out")
    else:
        refuse_existing(out, overwrite, FolderKind.CLICK_EVALUATION)
    from lorarec.evaluation import click_table, predictions_file, read_predictions, write_click_report
    from lorarec.evaluation import evaluate_clicks as evaluate_rows

    file = predictions_file(predictions)
    labels, rows = read_predictions(file)
    evaluation = evaluate_rows(labels, rows, compare or list(rows)[-1], seed, correction)
    if out is not None:
        write_click_report(evaluation, file, out, overwrite)
    if as_json:
        typer.echo(json.dumps(evaluation.as_dict(), indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(click_table(evaluation, file.name))
    if out is not None:
        console.print(f"Report written to {out / 'report.md'}", markup=False, highlight=False, soft_wrap=True)

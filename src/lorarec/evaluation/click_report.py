"""Reports of predicted clicks: metrics.json and report.md, and a table for a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lorarec.evaluation.click_evaluation import CLICK_METRICS, ClickEvaluation
from lorarec.evaluation.corrections import describe_stars
from lorarec.evaluation.report import METRICS, REPORT
from lorarec.evaluation.report_table import Cell, NumberCell, ReportTable, escape_markdown, versions_line
from lorarec.evaluation.result import LEVEL
from lorarec.io import FolderKind, file_fingerprint, new_folder, versions, write_json, write_text


def click_table(evaluation: ClickEvaluation, title: str) -> Table:
    """Return AUC, log loss, accuracy and calibration error for a terminal; a star marks a significant difference."""
    marked = describe_stars(evaluation.correction, evaluation.comparisons)
    caption = f"[{LEVEL:.0%} interval]; * differs from {evaluation.compare_with} ({marked})"
    return _table(evaluation).to_rich(f"{title}: {evaluation.events:,} test events", caption)


def write_click_report(evaluation: ClickEvaluation, predictions: Path, out: Path, overwrite: bool = False) -> None:
    """Write metrics.json and report.md of a file of predictions into a new folder.

    Raises:
        LorarecError: `out` exists or cannot be written to.
    """
    facts = [f"- predictions: {predictions} ({file_fingerprint(predictions)})", versions_line(versions())]
    with new_folder(out, overwrite, FolderKind.CLICK_EVALUATION) as folder:
        write_json(folder / METRICS, evaluation.as_dict())
        write_text(folder / REPORT, click_markdown(evaluation, f"Clicks of {predictions.name}", facts))


def click_markdown(
    evaluation: ClickEvaluation, title: str, facts: Sequence[str], note: str = "", more: Sequence[str] = ()
) -> str:
    """Return the report in Markdown.

    Args:
        facts: Lines above the table, about the data and models.
        note: Sentences about the test events.
        more: Lines for the end of the report.
    """
    lines = [
        f"# {title}",
        "",
        *facts,
        "",
        *_table(evaluation).markdown(),
        "",
        f"{evaluation.events:,} test events, {evaluation.clicked:.1%} of them clicks. {note}".rstrip(),
        "",
        "- ECE: expected calibration error. The events are put into 15 equally wide bins by probability; the error is "
        "the mean distance between probability and share of clicks in a bin, weighted by its events. 0 is best, and "
        "noise alone makes it larger, the more so the fewer the events.",
        f"- [low, high]: {LEVEL:.0%} bootstrap interval from 1,000 resamples of the events: percentiles, or for ECE "
        "the basic bootstrap interval, since resamples are worse calibrated than the events themselves.",
        f"- \\*: differs from {escape_markdown(evaluation.compare_with)}, "
        f"{describe_stars(evaluation.correction, evaluation.comparisons)}: DeLong's test for AUC, a paired "
        "bootstrap over events for ECE, else a two-sided paired t-test over events.",
        *more,
    ]
    return "\n".join(lines) + "\n"


def _table(evaluation: ClickEvaluation) -> ReportTable:
    rows: list[list[Cell]] = [
        [name, *(NumberCell.of(metrics[metric], digits=4) for metric in CLICK_METRICS)]
        for name, metrics in evaluation.rows.items()
    ]
    return ReportTable(["row", *CLICK_METRICS.values()], rows)

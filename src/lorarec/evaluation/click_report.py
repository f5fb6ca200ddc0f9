"""Figures of clicks for a person: a table at a terminal, metrics.json and report.md in a folder."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from lorarec.evaluation.click_evaluation import COLUMNS, ClickEvaluation
from lorarec.evaluation.report import METRICS, REPORT
from lorarec.evaluation.result import LEVEL, SIGNIFICANT, MetricResult
from lorarec.io import CLICK_EVALUATION, file_fingerprint, new_folder, versions, write_json, write_text


def click_table(evaluation: ClickEvaluation, title: str) -> Table:
    """AUC, log loss, accuracy and calibration error by row; a star marks p < 0.05 against the compared row."""
    caption = f"[{LEVEL:.0%} interval]; * differs from {evaluation.compare_with} (p < {SIGNIFICANT})"
    table = Table(title=Text(f"{title}: {evaluation.events:,} test events"), caption=Text(caption))
    table.add_column("row")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    for name, figures in evaluation.rows.items():
        table.add_row(Text(name), *(Text(_cell(figures[figure])) for figure in COLUMNS))
    return table


def write_click_report(evaluation: ClickEvaluation, predictions: Path, out: Path, overwrite: bool = False) -> None:
    """Write metrics.json and report.md of a file of predictions into a new folder.

    Raises:
        LorarecError: `out` exists or cannot be written to.
    """
    facts = [
        f"- predictions: {predictions} ({file_fingerprint(predictions)})",
        describe_versions(versions()),
    ]
    with new_folder(out, overwrite, CLICK_EVALUATION) as folder:
        write_json(folder / METRICS, evaluation.as_dict())
        write_text(folder / REPORT, click_markdown(evaluation, f"Clicks of {predictions.name}", facts))


def describe_versions(found: dict[str, str]) -> str:
    """Return the report's line about versions of packages."""
    return "- versions: " + ", ".join(f"{package} {version}" for package, version in found.items())


def click_markdown(
    evaluation: ClickEvaluation, title: str, facts: list[str], told: str = "", after: Sequence[str] = ()
) -> str:
    """Where the figures come from, the table, and what its columns are."""
    lines = [
        f"# {title}",
        "",
        *facts,
        "",
        "| row | " + " | ".join(COLUMNS.values()) + " |",
        "|---" + "|---:" * len(COLUMNS) + "|",
    ]
    for name, figures in evaluation.rows.items():
        cells = [_cell(figures[figure]).replace("*", "\\*") for figure in COLUMNS]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += [
        "",
        f"{evaluation.events:,} test events, {evaluation.clicked:.1%} of them clicks. {told}".rstrip(),
        "",
        "- ECE: expected calibration error. The events are put into 15 equally wide bins by probability; the error is "
        "the mean distance between probability and share of clicks in a bin, weighed by its events. 0 is best, and "
        "noise alone makes it larger, the more so the fewer the events.",
        f"- [low, high]: {LEVEL:.0%} bootstrap interval, from 1,000 resamples of the events: percentiles, for ECE "
        "turned round the figure (basic interval), since resamples are worse calibrated than the events themselves.",
        f"- \\*: differs from {evaluation.compare_with}, p < {SIGNIFICANT}: DeLong's test for AUC, a paired bootstrap "
        "over events for ECE, else a two-sided paired t-test over events; not corrected for the number of rows and "
        "columns.",
        *after,
    ]
    return "\n".join(lines) + "\n"


def _cell(figure: MetricResult) -> str:
    mark = "*" if figure.significant else ""
    return f"{figure.mean:.4f}{mark} [{figure.low:.4f}, {figure.high:.4f}]"

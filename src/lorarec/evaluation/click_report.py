"""Figures of clicks for a person: a table at a terminal, metrics.json and report.md in a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lorarec.artefacts import file_fingerprint, new_folder, versions, write_json, write_text
from lorarec.evaluation.clicks import COLUMNS, ClickEvaluation, evaluate_clicks
from lorarec.evaluation.report import METRICS, REPORT
from lorarec.evaluation.result import LEVEL, SIGNIFICANT, Figure
from lorarec.folder_kinds import CLICK_EVALUATION
from lorarec.personal import Personalized
from lorarec.personal.few2many import DRAWN, LABEL, RECLORA, WEIGHTS


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


def report_clicks(result: Personalized) -> ClickEvaluation:
    """Figures of the predictions of `personalize`; metrics.json and report.md are written beside them."""
    evaluation = evaluate_clicks(result.predictions[LABEL].to_numpy(), result.rows, RECLORA)
    write_json(result.folder / METRICS, evaluation.as_dict() | {"test": result.record["test"]})
    write_text(result.folder / REPORT, _of_run(evaluation, result.record))
    return evaluation


def write_click_report(evaluation: ClickEvaluation, predictions: Path, out: Path, overwrite: bool = False) -> None:
    """Write metrics.json and report.md of a file of predictions into a new folder.

    Raises:
        LorarecError: `out` exists or cannot be written to.
    """
    facts = [
        f"- predictions: {predictions} ({file_fingerprint(predictions)})",
        _versions(versions()),
    ]
    with new_folder(out, overwrite, CLICK_EVALUATION) as folder:
        write_json(folder / METRICS, evaluation.as_dict())
        write_text(folder / REPORT, _markdown(evaluation, f"Clicks of {predictions.name}", facts))


def told_of_test(record: dict[str, Any]) -> str:
    """One line about the test events that training says little about."""
    test = record["test"]
    return (
        f"Of {test['events']:,} test events, {test['unseen_users']:,} are of users and {test['unseen_items']:,} of "
        f"items without training events, {test['without_history']:,} of users without any history. For "
        f"{test['fell_back']:,} RecLoRA fell back to the router's mean weights: their user has no history, or training "
        "saw neither their item nor its genres nor its year."
    )


def _of_run(evaluation: ClickEvaluation, record: dict[str, Any]) -> str:
    """The report of what `personalize` wrote."""
    (dataset,) = record["datasets"]
    other, own = record["blend"]["weights"]
    facts = [
        f"- dataset: {dataset['name']} ({dataset['fingerprint']}), labelled and divided as {dataset['split']}",
        f"- backbone: {record['backbone']['id']} ({record['backbone']['fingerprint']})",
        f"- training events of the language model: {record['sample']:,}; conventional recommender: {record['crm']}",
        f"- last row: weighted mean of log-odds, recommender {other:.2f} and RecLoRA {own:.2f}, the weights with the "
        f"lowest log loss on {record['blend']['events']:,} validation events",
        "- options: " + ", ".join(f"{name} {value}" for name, value in record["options"].items()),
        _versions(record["versions"]),
    ]
    picture = [
        "",
        f"![Users by the weights that the router gives them, and mean weights by layer]({WEIGHTS})",
        "",
        "Left: each point is a user, placed by the two main directions in which users' weights differ (all layers) and "
        f"coloured by the share of clicks among the user's ratings; at most {DRAWN:,} users, drawn at random. Right: "
        "mean weight of each meta-LoRA in each layer.",
    ]
    return _markdown(evaluation, f"Clicks of {dataset['name']}", facts, told_of_test(record), picture)


def _versions(found: dict[str, str]) -> str:
    return "- versions: " + ", ".join(f"{package} {version}" for package, version in found.items())


def _markdown(
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


def _cell(figure: Figure) -> str:
    mark = "*" if figure.significant else ""
    return f"{figure.mean:.4f}{mark} [{figure.low:.4f}, {figure.high:.4f}]"

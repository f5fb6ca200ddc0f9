"""Reports of an evaluation: metrics.json, report.md and ndcg.png, and a table for a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from lorarec.data import NEW_ITEM
from lorarec.errors import LorarecError
from lorarec.evaluation.corrections import describe_stars
from lorarec.evaluation.plot import plot_ndcg, plotted_metrics
from lorarec.evaluation.report_table import (
    Cell,
    NumberCell,
    ReportTable,
    describe_options,
    escape_markdown,
    versions_line,
)
from lorarec.evaluation.result import (
    CATALOGUE_METRIC_NAMES,
    LEVEL,
    PROPERTY_NAMES,
    REPORT_METRICS,
    SIGNIFICANT,
    TOP,
    Evaluation,
    SettingResult,
)
from lorarec.io import write_json, write_text

METRICS, REPORT, PICTURE = "metrics.json", "report.md", "ndcg.png"
NEW_ITEM_NOTE = (
    "The target items never occur in training and most of the others do, so popularity ranks them last by "
    "construction, and a row that can tell which items occur in training has an advantage that does not come from "
    "the history."
)
_NDCG_NOTE = "- NDCG@k: 1 / log2(rank + 1) of the target item if it is among the first k, else 0; mean over cases."
_MRR_NOTE = "- MRR: mean of 1 / rank."
_TEST_NOTES = (
    f"- [low, high]: {LEVEL:.0%} percentile bootstrap interval of the mean, from 1,000 resamples of the cases, "
    "which all rows of a table share.",
    f"- \\*: differs from the compared row, two-sided paired t-test over cases with p < {SIGNIFICANT} after a "
    "correction for the number of comparisons, which is stated below each table.",
)
METRIC_NOTES = (
    _NDCG_NOTE,
    "- HR@k: share of cases whose target item is among the first k (HR@1 equals NDCG@1).",
    _MRR_NOTE,
    *_TEST_NOTES,
)
CATALOGUE_METRIC_NOTES = (
    "- Recall@k: share of cases whose target item is among the first k.",
    _NDCG_NOTE,
    _MRR_NOTE + " A target item without a rank, outside of a pool, counts as 0.",
    *_TEST_NOTES,
    f"- COVERAGE@{TOP}: share of the catalogue that is among the first {TOP} of any case.",
    f"- GINI@{TOP}: Gini index of how often each item of the catalogue is among the first {TOP}; 0 if all are equally "
    "often, near 1 if few are.",
    f"- NOVELTY@{TOP}: -log2 of the share of training users who chose an item, mean over the first {TOP}, then over "
    "cases; items that nobody chose count as if one user had.",
)
CATALOGUE_NOTE = (
    "Each case is one user's history and one target item. Every item of the catalogue that is not in the history is a "
    "candidate. Of several items with one score, the earlier in a random order, drawn once, ranks first."
)
STORED_NOTE = (
    "Each case is one user's history and one candidate set that holds one target item; candidates were drawn once and "
    "stored with the split. Of several candidates with one score, the earlier in the stored (random) order ranks first."
)
BEST_NOTE = "- Bold: the highest mean of the column."
_TERMINAL_COLUMNS = ("ndcg@1", "ndcg@3", "hr@10", "mrr")
_CATALOGUE_TERMINAL_COLUMNS = ("recall@10", "recall@100", "ndcg@10")


def write_report(evaluation: Evaluation, folder: Path, more: Sequence[str] = ()) -> None:
    """Write metrics.json, report.md and ndcg.png into an existing folder.

    Args:
        more: Lines for the end of report.md.
    """
    write_json(folder / METRICS, evaluation.as_dict())
    plot_ndcg(folder / PICTURE, evaluation)
    write_text(folder / REPORT, _markdown(evaluation) + "".join(f"{line}\n" for line in more))


def evaluation_table(evaluation: Evaluation, setting: str) -> Table:
    """Return the main metrics of one setting for a terminal; the best mean of a column is bold, stars are the report's.

    Raises:
        LorarecError: The setting was not evaluated.
    """
    if setting not in evaluation.settings:
        raise LorarecError(f"setting {setting!r} was not evaluated: choose from {', '.join(evaluation.settings)}")
    result = evaluation.settings[setting]
    columns = _TERMINAL_COLUMNS if result.catalogue is None else _CATALOGUE_TERMINAL_COLUMNS
    rows: list[list[Cell]] = []
    for row in result.rows.values():
        cells = []
        for name in columns:
            metric = row.metrics[name]
            interval = (metric.low, metric.high) if name.startswith("ndcg") else None
            best = result.is_best(row.name, name)
            cells.append(NumberCell(metric.mean, interval=interval, significant=metric.significant, best=best))
        rows.append([row.name, *cells, f"{1000 * row.seconds_per_user:.3g}"])
    table = ReportTable(["row", *map(str.upper, columns), "ms/user"], rows)
    return table.to_rich(
        f"{evaluation.protocol['dataset']['name']}, {setting}: {result.cases:,} cases",
        f"[95% interval]; * differs from {result.compare_with} (paired t-test, "
        f"{describe_stars(result.correction, result.comparisons)})",
    )


def setting_heading(result: SettingResult) -> list[str]:
    """Return the lines of a report above the table of a setting."""
    if result.catalogue is None:
        ranked = f"All rows ranked the same candidate sets (hash {result.candidates})."
    else:
        ranked = f"All rows ranked the {result.catalogue:,} items of the catalogue (hash {result.candidates})."
        if result.repeats:
            ranked += f" {result.repeats:,} cases whose target item is in the history are left out."
    return [
        f"## {result.setting}",
        "",
        f"{result.cases:,} cases of {result.users:,} users. {ranked} "
        f"Compared with: {escape_markdown(result.compare_with)}.",
        *([NEW_ITEM_NOTE] if result.setting.startswith(NEW_ITEM) else []),
        "",
    ]


def comparisons_note(result: SettingResult) -> str:
    """Return the line of a report below the table of a setting, which says what its stars mean."""
    return f"\\*: {describe_stars(result.correction, result.comparisons)}."


def _markdown(evaluation: Evaluation) -> str:
    """Return the report: a table for each setting, then descriptions of the rows and columns."""
    protocol = evaluation.protocol
    dataset, split = protocol["dataset"], protocol["split"]
    sample = f"{protocol['limit']} users of each setting" if protocol["limit"] else "all test users"
    lines = [
        f"# Evaluation on {dataset['name']}",
        "",
        f"- dataset: {dataset['name']} ({dataset['fingerprint']})",
        f"- split: {describe_options(split['options'])} ({split['fingerprint']})",
        f"- cases: {sample}; seed {protocol['seed']}",
        versions_line(protocol["versions"]),
        "",
        picture_line(evaluation),
        "",
    ]
    for result in evaluation.settings.values():
        lines += [*setting_heading(result), *_table(result).markdown(), "", comparisons_note(result), ""]
    stored = all(result.catalogue is None for result in evaluation.settings.values())
    lines += ["## Rows", "", *_describe_rows(evaluation), "", "## Columns", ""]
    lines += [
        STORED_NOTE if stored else CATALOGUE_NOTE,
        "",
        *(METRIC_NOTES if stored else CATALOGUE_METRIC_NOTES),
        "- s/user: wall time of scoring one user's candidates, without loading models.",
        BEST_NOTE,
    ]
    return "\n".join(lines) + "\n"


def picture_line(evaluation: Evaluation) -> str:
    """Return the line of a report that shows the picture."""
    names = " and ".join(map(str.upper, plotted_metrics(evaluation)))
    return f"![{names} with intervals]({PICTURE})"


def _table(result: SettingResult) -> ReportTable:
    columns = REPORT_METRICS if result.catalogue is None else CATALOGUE_METRIC_NAMES
    rows: list[list[Cell]] = [
        [
            row.name,
            *metric_cells(result, row.name, columns),
            *property_cells(result, row.name),
            f"{row.seconds_per_user:.2g}",
        ]
        for row in result.rows.values()
    ]
    return ReportTable(["row", *map(str.upper, (*columns, *property_names(result))), "s/user"], rows)


def metric_cells(result: SettingResult, row: str, metrics: Sequence[str]) -> list[NumberCell]:
    """Return the cells of a row with intervals and stars; the best mean of a column is bold."""
    results = result.rows[row].metrics
    return [NumberCell.of(results[name], best=result.is_best(row, name)) for name in metrics]


def property_names(result: SettingResult) -> tuple[str, ...]:
    """Return the names of the properties of lists that a setting has: none with stored candidate sets."""
    return () if result.catalogue is None else PROPERTY_NAMES


def property_cells(result: SettingResult, row: str) -> list[Cell]:
    """Return the cells of the properties of a row's lists; they are empty if it shows nothing."""
    properties = result.rows[row].properties
    return [NumberCell(properties[name]) if name in properties else "" for name in property_names(result)]


def _describe_rows(evaluation: Evaluation) -> list[str]:
    """Return a line about each row, or one for each setting if the descriptions differ."""
    lines = []
    for name in dict.fromkeys(name for result in evaluation.settings.values() for name in result.rows):
        about = {key: result.rows[name].about for key, result in evaluation.settings.items() if name in result.rows}
        title = f"- **{escape_markdown(name)}**"
        if len(set(about.values())) == 1:
            lines.append(f"{title}: {escape_markdown(next(iter(about.values())) or 'given by the caller')}")
        else:
            lines += [f"{title}, {setting}: {escape_markdown(text)}" for setting, text in about.items()]
    return lines

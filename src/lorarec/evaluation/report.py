"""metrics.json, report.md and ndcg.png of an evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorarec.data import NEW_ITEM
from lorarec.evaluation.plot import plot_ndcg
from lorarec.evaluation.result import LEVEL, SIGNIFICANT, Evaluation, MetricResult, SettingResult
from lorarec.io import write_json, write_text

METRICS, REPORT, PICTURE = "metrics.json", "report.md", "ndcg.png"
NEW_ITEM_NOTE = (
    "The right items never occur in training and most of the others do, so popularity ranks them last by construction, "
    "and a row that can tell which items occur in training has an advantage that is not taste."
)
#: HR@1 equals NDCG@1 and is left to metrics.json.
COLUMNS = ("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "hr@3", "hr@5", "hr@10", "mrr")


def write_report(evaluation: Evaluation, folder: Path, more: Sequence[str] = ()) -> None:
    """Write the three files into a folder that exists; `more` are lines for the end of report.md."""
    write_json(folder / METRICS, evaluation.as_dict())
    plot_ndcg(folder / PICTURE, evaluation)
    write_text(folder / REPORT, markdown(evaluation) + "".join(f"{line}\n" for line in more))


def markdown(evaluation: Evaluation) -> str:
    """The report: a table per setting, then what rows and columns are."""
    protocol = evaluation.protocol
    dataset, split = protocol["dataset"], protocol["split"]
    options = ", ".join(f"{key} {value}" for key, value in split["options"].items())
    sample = f"{protocol['limit']} users of each setting" if protocol["limit"] else "all test users"
    lines = [
        f"# Evaluation on {dataset['name']}",
        "",
        f"- dataset: {dataset['name']} ({dataset['fingerprint']})",
        f"- split: {options} ({split['fingerprint']})",
        f"- cases: {sample}; seed {protocol['seed']}",
        "- versions: " + ", ".join(f"{package} {version}" for package, version in protocol["versions"].items()),
        "",
        f"![NDCG@1 and NDCG@3 with intervals]({PICTURE})",
        "",
    ]
    for result in evaluation.settings.values():
        lines += [*_table(result), ""]
    lines += ["## Rows", "", *_rows(evaluation), "", "## Columns", "", *_columns()]
    return "\n".join(lines) + "\n"


def _table(result: SettingResult) -> list[str]:
    best = {name: max(row.figures[name].mean for row in result.rows.values()) for name in COLUMNS}
    head = ["row", *(name.upper() for name in COLUMNS), "s/user"]
    lines = [
        f"## {result.setting}",
        "",
        f"{result.cases:,} cases of {result.users:,} users. All rows ranked the same candidate sets "
        f"(hash {result.candidates}). Compared with: {plain(result.compare_with)}.",
        *([NEW_ITEM_NOTE] if result.setting == NEW_ITEM else []),
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|---:" * (len(head) - 1) + "|",
    ]
    for row in result.rows.values():
        cells = [cell(row.figures[name], row.figures[name].mean == best[name]) for name in COLUMNS]
        lines.append("| " + " | ".join([plain(row.name), *cells, f"{row.seconds_per_user:.2g}"]) + " |")
    return lines


def cell(figure: MetricResult, best: bool) -> str:
    """A figure with its interval and a star where it is significant; bold if it is the best of its column."""
    mean = f"**{figure.mean:.3f}**" if best else f"{figure.mean:.3f}"
    mark = "*" if figure.significant else ""
    return f"{mean}{mark and chr(92) + mark} [{figure.low:.3f}, {figure.high:.3f}]"


def _rows(evaluation: Evaluation) -> list[str]:
    """What each row is; by setting where it is not the same in all."""
    lines = []
    for name in dict.fromkeys(name for result in evaluation.settings.values() for name in result.rows):
        about = {key: result.rows[name].about for key, result in evaluation.settings.items() if name in result.rows}
        if len(set(about.values())) == 1:
            lines.append(f"- **{plain(name)}**: {plain(next(iter(about.values())) or 'given by the caller')}")
        else:
            lines += [f"- **{plain(name)}**, {setting}: {plain(text)}" for setting, text in about.items()]
    return lines


def _columns() -> list[str]:
    return [
        "Each case is one user's history and one candidate set that holds one right item; candidates were drawn once "
        "and stored with the split. Of several candidates with one score, the earlier in the stored (random) order "
        "ranks first.",
        "",
        "- NDCG@k: 1 / log2(rank + 1) of the right item if it is among the first k, else 0; mean over cases.",
        "- HR@k: share of cases whose right item is among the first k (HR@1 equals NDCG@1).",
        "- MRR: mean of 1 / rank.",
        f"- [low, high]: {LEVEL:.0%} percentile bootstrap interval of the mean, from 1,000 resamples of the cases, "
        "which all rows of a table share.",
        f"- \\*: differs from the compared row, two-sided paired t-test over cases with p < {SIGNIFICANT}, not "
        "corrected for the number of rows and columns.",
        "- s/user: wall time of scoring one user's candidates, without loading models.",
        "- Bold: the highest mean of the column.",
    ]


def plain(text: Any) -> str:
    """Text that Markdown shows as it is inside a table."""
    return str(text).replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")

"""Reports of the variants of an experiment: metrics.json and report.md, and a table for a terminal."""

from pathlib import Path

from rich.table import Table

from lorarec.evaluation.answer_evaluation import SAMPLES, AnswerEvaluation
from lorarec.evaluation.corrections import describe_stars
from lorarec.evaluation.outcomes import ANSWER_METRICS
from lorarec.evaluation.report import METRICS, REPORT
from lorarec.evaluation.report_table import Cell, NumberCell, ReportTable, escape_markdown, versions_line
from lorarec.evaluation.result import LEVEL
from lorarec.io import FolderKind, new_folder, versions, write_json, write_text

_TERMINAL_COLUMNS = ("hr@1", "hr@10", "ndcg@10", "mrr")
_NOTES = (
    "- HR@k: share of answers after which the user chose one of the first k items.",
    "- NDCG@k: with the chosen items as the relevant ones; 0 for an answer of which nothing was chosen.",
    "- MRR: mean of 1 / rank of the first chosen item; 0 for an answer of which nothing was chosen.",
    f"- [low, high]: {LEVEL:.0%} percentile bootstrap interval from {SAMPLES:,} resamples of the users, which all rows "
    "share.",
    "- IPS: inverse-propensity estimate of the metric if the variant had answered all requests of the experiment.",
    "- SNIPS: the same, divided by the mean weight.",
    "- ESS: effective sample size, the square of the sum of the weights over the sum of their squares.",
    "- mean weight: near 1 if the propensities are right.",
)


def answer_table(evaluation: AnswerEvaluation) -> Table:
    """Return the main metrics of the variants for a terminal; a star marks a significant difference."""
    marked = describe_stars(evaluation.correction, evaluation.comparisons)
    caption = f"[{LEVEL:.0%} interval over users]; * differs from {evaluation.compare_with} ({marked})"
    return _means(evaluation, _TERMINAL_COLUMNS).to_rich(f"Experiment {evaluation.experiment}", caption)


def propensity_table(evaluation: AnswerEvaluation) -> Table:
    """Return the inverse-propensity estimates of the variants for a terminal."""
    return _estimates(evaluation, ("hr@10", "ndcg@10")).to_rich("If one variant had answered all requests")


def write_answer_report(evaluation: AnswerEvaluation, log: Path, out: Path, overwrite: bool = False) -> None:
    """Write metrics.json and report.md into a new folder.

    Raises:
        LorarecError: `out` exists or cannot be written to.
    """
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in evaluation.left_out.items() if count) or "none"
    lines = [
        f"# Experiment {escape_markdown(evaluation.experiment)}",
        "",
        f"- answers: {log}; left out: {left_out}",
        f"- events count up to {evaluation.window:g} s after an answer",
        versions_line(versions()),
        "",
        *_means(evaluation, ANSWER_METRICS).markdown(),
        "",
        f"\\*: differs from {escape_markdown(evaluation.compare_with)}, two-sided bootstrap test over users with "
        f"{describe_stars(evaluation.correction, evaluation.comparisons)}.",
        "",
        f"## Differences to {escape_markdown(evaluation.compare_with)}",
        "",
        *_differences(evaluation).markdown(),
        "",
        "## If one variant had answered all requests",
        "",
        *_estimates(evaluation, ANSWER_METRICS).markdown(),
        "",
        "## Columns",
        "",
        *_NOTES,
    ]
    with new_folder(out, overwrite, FolderKind.EVALUATION) as folder:
        write_json(folder / METRICS, evaluation.as_dict())
        write_text(folder / REPORT, "\n".join(lines) + "\n")


def _means(evaluation: AnswerEvaluation, metrics: tuple[str, ...]) -> ReportTable:
    rows: list[list[Cell]] = [
        [name, f"{each.users:,}", f"{each.answers:,}", *(NumberCell.of(each.metrics[metric]) for metric in metrics)]
        for name, each in evaluation.variants.items()
    ]
    return ReportTable(["variant", "users", "answers", *map(str.upper, metrics)], rows)


def _differences(evaluation: AnswerEvaluation) -> ReportTable:
    rows: list[list[Cell]] = [
        [name, *(NumberCell.of(each.differences[metric]) for metric in ANSWER_METRICS)]
        for name, each in evaluation.variants.items()
        if each.differences
    ]
    return ReportTable(["variant", *map(str.upper, ANSWER_METRICS)], rows)


def _estimates(evaluation: AnswerEvaluation, metrics: tuple[str, ...]) -> ReportTable:
    rows: list[list[Cell]] = []
    for name, each in evaluation.variants.items():
        size, weight = f"{each.effective_sample_size:,.1f}", f"{each.mean_weight:.3f}"
        for estimator, found in (("IPS", each.ips), ("SNIPS", each.snips)):
            rows.append([name, estimator, size, weight, *(NumberCell.of(found[metric]) for metric in metrics)])
    return ReportTable(["variant", "estimate", "ESS", "mean weight", *map(str.upper, metrics)], rows, text_columns=2)

"""Correction of the p-values of a table for the number of its tests."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lorarec.evaluation.result import SIGNIFICANT, MetricResult
from lorarec.metrics import Correction, adjust_p_values

_TITLES: dict[Correction, str] = {
    "holm": "Holm's correction",
    "benjamini-hochberg": "the Benjamini-Hochberg correction",
}


def correct_rows(
    rows: Mapping[str, Mapping[str, MetricResult]], metrics: Sequence[str], correction: Correction
) -> dict[str, dict[str, MetricResult]]:
    """Return the results with corrected p-values; all tests of the given metrics and rows are one family.

    Args:
        rows: Results by name of the row and name of the metric.
        metrics: Names of the metrics that the table shows. Others keep their p-values without a corrected one.
        correction: Name of the correction.
    """
    corrected = {row: dict(results) for row, results in rows.items()}
    raw = {(row, metric): p for row in rows for metric in metrics if (p := rows[row][metric].p) is not None}
    adjusted = adjust_p_values([*raw.values()], correction).tolist()
    for (row, metric), p_value in zip(raw, adjusted, strict=True):
        corrected[row][metric] = replace(rows[row][metric], adjusted_p=p_value)
    return corrected


def correction_title(correction: Correction, comparisons: int) -> str:
    """Return a description of a correction, as in `Holm's correction for 12 comparisons`."""
    return f"{_TITLES[correction]} for {comparisons:,} comparison{'' if comparisons == 1 else 's'}"


def describe_stars(correction: Correction, comparisons: int) -> str:
    """Return when a star marks a difference, as in `p < 0.05 after Holm's correction for 12 comparisons`."""
    return f"p < {SIGNIFICANT} after {correction_title(correction, comparisons)}"

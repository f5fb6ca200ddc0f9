"""Metrics of predicted clicks: AUC, log loss, accuracy and calibration of several models on the same events."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from lorarec.errors import LorarecError
from lorarec.evaluation.corrections import correct_rows
from lorarec.evaluation.result import LEVEL, MetricResult, count_comparisons
from lorarec.io import JsonObject
from lorarec.metrics import (
    Correction,
    accuracy,
    auc,
    auc_interval,
    bootstrap_interval,
    calibration_error,
    calibration_interval,
    calibration_test,
    check_correction,
    delong_test,
    log_loss,
    paired_t_test,
)

#: Name of each metric, and the title of its column.
CLICK_METRICS = {"auc": "AUC", "log_loss": "LogLoss", "accuracy": "ACC", "calibration_error": "ECE"}


@dataclass(frozen=True)
class ClickEvaluation:
    """Results of several models on the same events.

    Attributes:
        events: Number of events.
        clicked: Share of clicks among the events.
        compare_with: Name of the row that the tests compare with.
        rows: Metrics by name of the row and name of the metric: mean, 95% interval and p-value (DeLong's test for AUC,
            a paired bootstrap for the calibration error, else a paired t-test over events; None for the row that is
            compared with).
        correction: Correction of the p-values for the number of tests.
    """

    events: int
    clicked: float
    compare_with: str
    rows: dict[str, dict[str, MetricResult]]
    correction: Correction = "holm"

    @property
    def comparisons(self) -> int:
        """Number of tests of the table, for which the p-values are corrected."""
        return count_comparisons(self.rows.values())

    def as_dict(self) -> JsonObject:
        """Return plain values, as metrics.json holds them."""
        return {**asdict(self), "comparisons": self.comparisons}


def evaluate_clicks(
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    compare_with: str,
    seed: int = 0,
    correction: Correction = "holm",
) -> ClickEvaluation:
    """Compute each row's metrics with bootstrap intervals over events, and test them against one of the rows.

    Args:
        labels: Labels (events,), 1 for a click and 0 for none.
        predictions: Probabilities (events,) by name of the row.
        compare_with: Name of the row that the tests compare with.
        seed: Seed of the resampling.
        correction: Correction of the p-values for the number of tests, which are all of one family.

    Raises:
        LorarecError: All labels are alike, a value is not a probability, there is no row `compare_with`, or the
            correction is unknown.
    """
    check_correction(correction)
    if compare_with not in predictions:
        raise LorarecError(f"no row {compare_with!r} to compare with: choose one of {', '.join(predictions)}")
    compared = predictions[compare_with]
    rows = {}
    for name, predicted in predictions.items():
        other = None if name == compare_with else compared
        p = None if other is None else delong_test(predicted, other, labels)
        metrics = {"auc": MetricResult(auc(predicted, labels), *auc_interval(predicted, labels, LEVEL, seed=seed), p)}
        for metric, per_event in (("log_loss", log_loss), ("accuracy", accuracy)):
            values = per_event(predicted, labels)
            low, high = bootstrap_interval(values, LEVEL, seed=seed)
            p = None if other is None else paired_t_test(values, per_event(other, labels))
            metrics[metric] = MetricResult(float(values.mean()), float(low), float(high), p)
        p = None if other is None else calibration_test(predicted, other, labels, seed=seed)
        interval = calibration_interval(predicted, labels, LEVEL, seed=seed)
        metrics["calibration_error"] = MetricResult(calibration_error(predicted, labels), *interval, p)
        rows[name] = metrics
    rows = correct_rows(rows, list(CLICK_METRICS), correction)
    return ClickEvaluation(len(labels), float(np.mean(labels)), compare_with, rows, correction)

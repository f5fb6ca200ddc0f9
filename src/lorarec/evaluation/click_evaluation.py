"""Figures of predicted clicks: AUC, log loss, accuracy and calibration of several models on the same events."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lorarec.errors import LorarecError
from lorarec.evaluation.result import LEVEL, MetricResult
from lorarec.metrics import (
    accuracy,
    auc,
    auc_interval,
    bootstrap_interval,
    calibration_error,
    calibration_interval,
    calibration_test,
    delong_test,
    log_loss,
    paired_t_test,
)

#: Names of figures and of their columns.
COLUMNS = {"auc": "AUC", "log_loss": "LogLoss", "accuracy": "ACC", "calibration_error": "ECE"}


@dataclass(frozen=True)
class ClickEvaluation:
    """Rows of a table over the same events.

    Attributes:
        events: how many.
        clicked: share of clicks among them.
        compare_with: the row whose difference from each other row is tested.
        rows: name of the row -> name of the figure -> mean, 95% interval and p (DeLong's test for AUC, a paired
            bootstrap for the calibration error, else a paired t-test over events; None for the compared row).
    """

    events: int
    clicked: float
    compare_with: str
    rows: dict[str, dict[str, MetricResult]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON keeps them."""
        return asdict(self)


def evaluate_clicks(
    labels: np.ndarray, predictions: Mapping[str, np.ndarray], compare_with: str, seed: int = 0
) -> ClickEvaluation:
    """Figures of each row's probabilities with bootstrap intervals over events, and tests against one of the rows.

    Args:
        labels: (events,) 1 for a click.
        predictions: name of the row -> (events,) probabilities.
        compare_with: one of the names.
        seed: of the resampling.

    Raises:
        LorarecError: labels all alike, what is no probability, or no such row to compare with.
    """
    if compare_with not in predictions:
        raise LorarecError(f"no row {compare_with} to compare with: choose one of {', '.join(predictions)}")
    compared = predictions[compare_with]
    rows = {}
    for name, found in predictions.items():
        other = None if name == compare_with else compared
        tested = None if other is None else delong_test(found, other, labels)
        figures = {"auc": MetricResult(auc(found, labels), *auc_interval(found, labels, LEVEL, seed=seed), tested)}
        for figure, per_event in (("log_loss", log_loss), ("accuracy", accuracy)):
            values = per_event(found, labels)
            low, high = bootstrap_interval(values, LEVEL, seed=seed)
            tested = None if other is None else paired_t_test(values, per_event(other, labels))
            figures[figure] = MetricResult(float(values.mean()), float(low), float(high), tested)
        tested = None if other is None else calibration_test(found, other, labels, seed=seed)
        interval = calibration_interval(found, labels, LEVEL, seed=seed)
        rows[name] = figures | {"calibration_error": MetricResult(calibration_error(found, labels), *interval, tested)}
    return ClickEvaluation(len(labels), float(np.mean(labels)), compare_with, rows)

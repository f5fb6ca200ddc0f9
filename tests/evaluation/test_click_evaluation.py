"""Metrics of click probabilities against known results."""

import numpy as np
import pytest

from lorarec.errors import LorarecError
from lorarec.evaluation import click_table, evaluate_clicks


def test_figures_and_tests_of_known_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    rows = {
        "knows": np.where(labels == 1, 0.9, 0.1),
        "guesses": rng.uniform(size=400),
        "knows too": np.where(labels == 1, 0.9, 0.1),
    }
    found = evaluate_clicks(labels, rows, "knows")
    assert (found.events, found.clicked) == (400, labels.mean())
    knows, guesses, too = (found.rows[name] for name in rows)
    assert knows["auc"].mean == 1
    assert guesses["auc"].low < 0.5 < guesses["auc"].high
    assert knows["log_loss"].mean == pytest.approx(-np.log(0.9))
    assert knows["accuracy"].mean == 1
    assert knows["calibration_error"].mean == pytest.approx(0.1)
    assert guesses["calibration_error"].low > 0.15
    assert guesses["accuracy"].low < 0.5 < guesses["accuracy"].high
    assert all(figure.p is None for figure in knows.values())
    assert all(figure.p < 0.003 for figure in guesses.values())
    assert all(figure.p == 1 for figure in too.values())
    assert click_table(found, "films").row_count == 3


def test_labels_all_alike() -> None:
    with pytest.raises(LorarecError, match="all labels are alike"):
        evaluate_clicks(np.ones(3), {"row": np.full(3, 0.5)}, "row")

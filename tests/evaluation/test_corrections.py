"""Correction of the p-values of a table: the family, and what becomes of the stars."""

import json
from pathlib import Path

import numpy as np
import pytest

from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation import MetricResult, click_markdown, correct_rows, correction_title, evaluate, evaluate_clicks
from lorarec.metrics import adjust_p_values
from lorarec.recommenders import TfIdf, TrainingData


def _result(p: float | None) -> MetricResult:
    return MetricResult(0.5, 0.4, 0.6, p)


def test_all_tests_of_the_shown_metrics_are_one_family() -> None:
    rows = {
        "a": {"ndcg@1": _result(0.01), "mrr": _result(0.03), "hr@1": _result(1e-9)},
        "b": {"ndcg@1": _result(0.02), "mrr": _result(0.2), "hr@1": _result(1e-9)},
        "compared": {"ndcg@1": _result(None), "mrr": _result(None), "hr@1": _result(None)},
    }
    found = correct_rows(rows, ["ndcg@1", "mrr"], "holm")
    adjusted = {(row, name): each.adjusted_p for row, results in found.items() for name, each in results.items()}
    assert [adjusted[key] for key in (("a", "ndcg@1"), ("b", "ndcg@1"), ("a", "mrr"), ("b", "mrr"))] == pytest.approx(
        [0.04, 0.06, 0.06, 0.2]
    )
    assert {key for key, value in adjusted.items() if value is None} == {
        ("a", "hr@1"), ("b", "hr@1"), ("compared", "ndcg@1"), ("compared", "mrr"), ("compared", "hr@1"),
    }  # fmt: skip
    assert [key for key in adjusted if found[key[0]][key[1]].significant] == [("a", "ndcg@1")]
    assert all(found[row][name].p == rows[row][name].p for row in rows for name in rows[row])


def test_an_evaluation_states_its_comparisons_and_keeps_raw_p_values(
    dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    rows = {"again": TfIdf().fit(TrainingData(dataset, split))}
    holm = evaluate(dataset, rows, split=split, settings=["warm"], out=tmp_path / "report").settings["warm"]
    bh = evaluate(dataset, rows, split=split, settings=["warm"], correction="benjamini-hochberg").settings["warm"]
    assert (holm.comparisons, holm.correction, bh.correction) == (32, "holm", "benjamini-hochberg")
    tests = [
        (row, name) for row in holm.rows for name, each in holm.rows[row].metrics.items() if each.adjusted_p is not None
    ]
    assert len(tests) == 32
    assert "hr@1" not in {name for _, name in tests}
    raw = [holm.rows[row].metrics[name].p for row, name in tests]
    for result in (holm, bh):
        assert [result.rows[row].metrics[name].p for row, name in tests] == raw
        adjusted = [result.rows[row].metrics[name].adjusted_p for row, name in tests]
        np.testing.assert_allclose(adjusted, adjust_p_values(raw, result.correction))  # type: ignore[arg-type]
    report = (tmp_path / "report" / "report.md").read_text()
    assert "\\*: p < 0.05 after Holm's correction for 32 comparisons." in report
    stored = json.loads((tmp_path / "report" / "metrics.json").read_text())["settings"]["warm"]
    assert (stored["correction"], stored["comparisons"]) == ("holm", 32)
    assert {"p", "adjusted_p"} < stored["rows"]["random"]["mrr"].keys()
    with pytest.raises(LorarecError, match="no correction 'none' of p-values: choose one of holm, benjamini-hochberg"):
        evaluate(dataset, rows, split=split, correction="none")  # type: ignore[arg-type]


def test_clicks_are_corrected_over_all_rows_and_metrics() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=300)
    rows = {name: np.clip(0.5 + (labels - 0.5) * 0.2 + rng.normal(0, 0.2, 300), 0, 1) for name in "abc"}
    found = evaluate_clicks(labels, rows, "a", correction="benjamini-hochberg")
    assert found.comparisons == found.as_dict()["comparisons"] == 8
    raw = [each.p for name in "bc" for each in found.rows[name].values()]
    adjusted = [each.adjusted_p for name in "bc" for each in found.rows[name].values()]
    np.testing.assert_allclose(adjusted, adjust_p_values(raw, "benjamini-hochberg"))  # type: ignore[arg-type]
    report = click_markdown(found, "Clicks", [])
    assert "p < 0.05 after the Benjamini-Hochberg correction for 8 comparisons: DeLong's test for AUC" in report


def test_one_comparison_is_singular() -> None:
    assert correction_title("holm", 1) == "Holm's correction for 1 comparison"

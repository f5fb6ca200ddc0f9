"""The verb `evaluate-clicks`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from tests.command_line import run


def _table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(2, size=60)
    return pl.DataFrame(
        {
            "user_id": [f"u{k % 6}" for k in range(60)],
            "item_id": [f"i{k % 9}" for k in range(60)],
            "timestamp": range(60),
            "label": pl.Series(label, dtype=pl.Int8),
            "guesses": rng.random(60),
            "knows": 0.2 + 0.6 * label,
        }
    )


def _run(*words: object) -> str:
    return run("evaluate-clicks", *words).stdout


def test_table_report_and_json(tmp_path: Path) -> None:
    table = _table()
    table.write_parquet(tmp_path / "predictions.parquet")
    output = _run(tmp_path, "--out", tmp_path / "report")
    for word in ("knows", "guesses", "AUC", "LogLoss", "ACC", "ECE", "60 test events", "differs from knows"):
        assert word in " ".join(output.split())
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| guesses |" in report
    assert "predictions.parquet" in report
    found = json.loads(_run(tmp_path / "predictions.parquet", "--compare", "guesses", "--json"))
    assert (found["events"], found["compare_with"], list(found["rows"])) == (60, "guesses", ["guesses", "knows"])
    auc = roc_auc_score(table["label"].to_numpy(), table["guesses"].to_numpy())
    assert found["rows"]["guesses"]["auc"]["mean"] == pytest.approx(auc)
    assert found["rows"]["knows"]["calibration_error"]["mean"] == pytest.approx(0.2)
    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert written["rows"]["guesses"]["auc"]["p"] is not None
    assert found["rows"]["guesses"]["auc"]["p"] is None


@pytest.mark.parametrize(
    ("spoil", "words", "cause"),
    [
        (lambda table: table.drop("label"), [], "has no column label: add one"),
        (lambda table: table.drop("guesses", "knows"), [], "has no column of probabilities beside label"),
        (lambda table: _put(table, "guesses", 3, 1.5), [], "row 4 of column guesses is 1.5, no probability"),
        (lambda table: _put(table, "guesses", 0, -0.1), [], "row 1 of column guesses is -0.1, no probability"),
        (lambda table: _put(table, "knows", 59, float("nan")), [], "row 60 of column knows is nan, no probability"),
        (lambda table: _put(table, "knows", 5, None), [], "row 6 of column knows is missing"),
        (lambda table: _put(table, "label", 5, None), [], "row 6 of column label is missing"),
        (lambda table: _put(table, "label", 2, 2), [], "row 3 of column label is 2, neither 0 nor 1"),
        (lambda table: table.with_columns(title=pl.lit("lamp")), [], "column title holds String, not numbers"),
        (lambda table: table.with_columns(label=pl.lit(1)), [], "all labels are alike"),
        (lambda table: table.filter(label=0).head(0), [], "no events"),
        (lambda table: table, ["--compare", "nobody"], "no row 'nobody' to compare with: choose one of guesses, knows"),
        (lambda table: table, ["--out", "."], "exists already"),
        (None, [], "is not readable Parquet"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[..., str],
    spoil: Callable[[pl.DataFrame], pl.DataFrame] | None,
    words: list[str],
    cause: str,
) -> None:
    if spoil is None:
        (tmp_path / "clicks.parquet").write_text("user,item\n")
    else:
        spoil(_table()).write_parquet(tmp_path / "clicks.parquet")
    monkeypatch.chdir(tmp_path)
    assert cause in refusal("evaluate-clicks", "clicks.parquet", "--out", "new", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.parquet"]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"predictions\.parquet is missing: name one that `lorarec personal train`"):
        _run(tmp_path)


def _put(table: pl.DataFrame, column: str, row: int, value: float | None) -> pl.DataFrame:
    values = table[column].to_list()
    values[row] = value
    return table.with_columns(pl.Series(column, values, strict=False))

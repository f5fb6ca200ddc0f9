"""Evaluation: inputs of scorers, metrics, reports and errors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from scipy import stats

from lorarec.data import Dataset, Split, leave_one_out
from lorarec.errors import LorarecError
from lorarec.evaluation import Evaluation, evaluate, evaluation_table, write_report


def as_scorer(function):
    """Give a function the method of a scorer, which is the function itself."""
    function.score = function
    return function


@as_scorer
def first_is_best(cases: pl.DataFrame) -> list[np.ndarray]:
    """Rank candidates in the order given."""
    return [-np.arange(len(candidates), dtype=float) for candidates in cases["candidates"]]


def oracle(split: Split, setting: str = "warm"):
    """A scorer that knows the targets."""
    targets = set(split.test[setting].select("user_id", "target").rows())

    @as_scorer
    def scorer(cases: pl.DataFrame) -> list[np.ndarray]:
        pairs = zip(cases["user_id"], cases["candidates"], strict=True)
        return [np.array([(user, item) in targets for item in items], dtype=float) for user, items in pairs]

    return scorer


def test_metrics_of_a_known_ranker(dataset: Dataset, split: Split) -> None:
    rows = {"first": first_is_best, "oracle": oracle(split)}
    result = evaluate(dataset, rows, split=split, settings=["warm"]).settings["warm"]
    cases = split.test["warm"]
    assert list(result.rows) == ["random", "popularity", "item-knn", "tf-idf", "first", "oracle"]
    assert (result.cases, result.users) == (len(cases), len(cases))
    pairs = cases.select("target", "candidates").iter_rows()
    ranks = np.array([candidates.index(target) + 1 for target, candidates in pairs])
    first = result.rows["first"]
    assert first.ranks.tolist() == ranks.tolist()
    assert first.metrics["ndcg@3"].mean == pytest.approx(np.where(ranks <= 3, 1 / np.log2(ranks + 1), 0).mean())
    assert first.metrics["hr@5"].mean == pytest.approx((ranks <= 5).mean())
    assert first.metrics["mrr"].mean == pytest.approx((1 / ranks).mean())
    assert all(metric.low <= metric.mean <= metric.high for metric in first.metrics.values())
    assert all(metric.mean == metric.low == 1 for metric in result.rows["oracle"].metrics.values())
    assert result.rows["tf-idf"].metrics["ndcg@1"].mean > 0.3


def test_rows_never_see_targets(dataset: Dataset, split: Split) -> None:
    seen = []

    @as_scorer
    def spy(cases: pl.DataFrame) -> list[np.ndarray]:
        seen.append(cases.columns)
        return first_is_best(cases)

    evaluate(dataset, {"spy": spy}, split=split)
    assert seen == [["user_id", "history", "candidates"]] * 2


def test_compared_row(dataset: Dataset, split: Split) -> None:
    def result(**options):
        return evaluate(dataset, {"first": first_is_best}, split=split, settings=["warm"], **options).settings["warm"]

    default = result()
    assert default.compare_with == "tf-idf"
    named = result(compare_with="first")
    assert named.rows["first"].metrics["mrr"].p is None
    a, b = (1 / named.rows[name].ranks for name in ("tf-idf", "first"))
    assert named.rows["tf-idf"].metrics["mrr"].p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert default.rows["first"].metrics["mrr"].p == named.rows["tf-idf"].metrics["mrr"].p


def test_same_seed_same_figures_and_limits_are_nested(dataset: Dataset, split: Split) -> None:
    users = []

    @as_scorer
    def spy(cases: pl.DataFrame) -> list[np.ndarray]:
        users.append(cases["user_id"].to_list())
        return first_is_best(cases)

    def run(**options) -> dict:
        found = evaluate(dataset, {"spy": spy}, split=split, settings=["warm"], **options).as_dict()
        for row in found["settings"]["warm"]["rows"].values():
            del row["seconds_per_user"]
        return found

    assert run(limit=8) == run(limit=8)
    run(limit=12)
    assert run(limit=10_000)["settings"]["warm"]["cases"] == len(split.test["warm"])
    assert run(limit=8, seed=1) != run(limit=8)
    assert [len(each) for each in users[:3]] == [8, 8, 12]
    assert set(users[0]) <= set(users[2])
    assert users[2] == sorted(users[2])


def test_report_is_written_with_the_protocol(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    @as_scorer
    def described(cases: pl.DataFrame) -> list[np.ndarray]:
        return first_is_best(cases)

    described.about = "takes the first"
    out = tmp_path / "report"
    evaluation = evaluate(dataset, {"first|row": described}, split=split, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "ndcg.png", "report.md"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == evaluation.as_dict()
    assert metrics["split"]["fingerprint"] == split.fingerprint
    row = metrics["settings"]["new-item"]["rows"]["first|row"]
    assert {"ndcg@10", "hr@1", "mrr", "seconds_per_user"} <= row.keys()
    assert row["about"] == "takes the first"
    report = (out / "report.md").read_text()
    for setting in ("warm", "new-item"):
        result = evaluation.settings[setting]
        assert f"## {setting}" in report
        assert result.candidates in report
        metric = result.rows["tf-idf"].metrics["ndcg@3"]
        assert f"{metric.mean:.3f}** [{metric.low:.3f}, {metric.high:.3f}]" in report
    assert "- **first\\|row**: takes the first" in report
    tables = [line for line in report.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in tables} == {11}
    assert (out / "ndcg.png").read_bytes().startswith(b"\x89PNG")


def test_rows_of_settings_evaluated_apart_can_be_joined(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    warm = evaluate(dataset, {"a": first_is_best}, split=split, settings=["warm"])
    new = evaluate(dataset, {"b": first_is_best}, split=split, settings=["new-item"])
    joined = replace(warm, settings=warm.settings | new.settings)
    write_report(joined, tmp_path)
    assert "**b**" in (tmp_path / "report.md").read_text()


def test_table_for_the_terminal(dataset: Dataset, split: Split) -> None:
    evaluation = evaluate(dataset, {"[first]": first_is_best}, split=split, settings=["warm"])
    console = Console(width=120)
    with console.capture() as capture:
        console.print(evaluation_table(evaluation, "warm"))
    assert "[first]" in capture.get()
    assert "nouns, warm" in capture.get()
    with pytest.raises(LorarecError, match="setting 'new-item' was not evaluated: choose from warm"):
        evaluation_table(evaluation, "new-item")


def test_progress_names_each_row_on_standard_error(
    dataset: Dataset, split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(dataset, {"first": first_is_best}, split=split, settings=["warm"], progress=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert "warm: first NDCG@1" in output.err
    evaluate(dataset, {"first": first_is_best}, split=split, settings=["warm"])
    assert capsys.readouterr() == ("", "")


def _refused(dataset: Dataset, split: Split, message: str, scorer=first_is_best, name: str = "mine", **options) -> None:
    with pytest.raises(LorarecError, match=message):
        evaluate(dataset, {name: scorer}, split=split, **options)


def test_bad_scores_name_row_setting_and_user(dataset: Dataset, split: Split) -> None:
    user = split.test["warm"]["user_id"][1]

    def spoil(change):
        return as_scorer(lambda cases: change(first_is_best(cases)))

    def nan(scores: list[np.ndarray]) -> list[np.ndarray]:
        scores[1][0] = np.nan
        return scores

    shorter = spoil(lambda scores: [scores[0], scores[1][:-1], *scores[2:]])
    only = {"settings": ["warm"]}
    _refused(dataset, split, "row mine, setting warm: case 1: a score is NaN", spoil(nan), **only)
    _refused(dataset, split, rf"user {user} has scores of shape \(9,\) for 10 candidates", shorter, **only)
    _refused(dataset, split, "scores of 0 cases for", spoil(lambda scores: []), **only)


@pytest.mark.parametrize("rank", [np.nan, 0.0, -1.0])
def test_ranks_below_one_are_refused(dataset: Dataset, split: Split, rank: float) -> None:
    class Ranks:
        returns_ranks = True

        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            return [
                np.full(size, rank if case == 1 else 1.0) for case, size in enumerate(cases["candidates"].list.len())
            ]

    _refused(dataset, split, f"case 1: the target has the rank {rank:g}, but 1 is the best", Ranks(), settings=["warm"])


def test_a_scorer_may_not_change_its_cases(dataset: Dataset, split: Split) -> None:
    @as_scorer
    def meddler(cases: pl.DataFrame) -> list[np.ndarray]:
        cases.replace_column(2, cases["candidates"].list.reverse())
        return first_is_best(cases)

    _refused(dataset, split, "row mine, setting warm: the scorer changed the cases", meddler)
    after = evaluate(dataset, {"first": first_is_best}, split=split, settings=["warm"])
    assert after.settings["warm"].rows["first"].ranks.max() <= 10


def test_bad_settings(dataset: Dataset, split: Split) -> None:
    _refused(dataset, split, "nouns has no setting 'cold': choose from warm, new-item", settings=["cold"])
    warm_only = leave_one_out(dataset, new_items=0, negatives=9)
    _refused(dataset, warm_only, "has no setting 'new-item': choose from warm", settings=["new-item"])
    empty = replace(split, test={**split.test, "new-item": split.test["new-item"].clear()})
    _refused(dataset, empty, "setting new-item of dataset nouns has no cases", settings=["new-item"])
    assert list(evaluate(dataset, {}, split=empty).settings) == ["warm"]
    nothing = replace(split, test={"warm": split.test["warm"].clear()})
    _refused(dataset, nothing, "dataset nouns has no test cases")


def test_bad_rows_and_limits(dataset: Dataset, split: Split) -> None:
    _refused(dataset, split, "no row 'other' to compare with: choose one of random, popular", compare_with="other")
    _refused(dataset, split, "row name tf-idf is taken by a baseline", name="tf-idf")
    _refused(dataset, split, "limit must be at least one user, got 0", limit=0)


def test_target_outside_its_candidates(dataset: Dataset, split: Split) -> None:
    cases = split.test["warm"].with_columns(pl.lit("elsewhere").alias("target"))
    user = cases["user_id"][0]
    _refused(
        dataset,
        replace(split, test={"warm": cases}),
        f"setting warm: the target elsewhere of user {user} is not among the candidates",
    )


def test_existing_folder_is_refused_before_anything_is_scored(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    @as_scorer
    def never(cases: pl.DataFrame) -> list[np.ndarray]:
        raise AssertionError("scored")

    evaluate(dataset, {}, split=split, settings=["warm"], out=tmp_path / "report")
    _refused(dataset, split, "report exists already", never, out=tmp_path / "report")
    (tmp_path / "report" / "report.md").write_text("old")
    evaluate(dataset, {}, split=split, settings=["warm"], out=tmp_path / "report", overwrite=True)
    assert (tmp_path / "report" / "report.md").read_text() != "old"
    (tmp_path / "report" / "precious").touch()
    with pytest.raises(LorarecError, match="report contains precious, which lorarec did not write"):
        evaluate(dataset, {}, split=split, settings=["warm"], out=tmp_path / "report", overwrite=True)


def test_a_failed_evaluation_leaves_nothing(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    _refused(dataset, split, "scores of 0 cases", as_scorer(lambda cases: []), out=tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_one_case_is_enough(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    found: Evaluation = evaluate(dataset, {"first": first_is_best}, split=split, limit=1, out=tmp_path / "one")
    assert found.settings["warm"].cases == 1
    json.dumps(found.as_dict(), allow_nan=False)

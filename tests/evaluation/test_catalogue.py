"""Evaluation over a whole catalogue: ranks and properties of lists against loops, ties, pools, repeats and reports."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation import Catalogue, Evaluation, RowResult, evaluate, evaluation_table, rank_cases, without_repeats
from lorarec.ranking import PoolScorer, fuse, pool_scorers
from lorarec.recommenders import FusionConfig, Popularity, Scorer, TfIdf, TrainingData
from lorarec.retrieval import Index


class BySum:
    """A scorer with many ties: the number in an item's id, in fives; half of the items are unknown to it."""

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        return [np.array([self.of(item) for item in items]) for items in cases["candidates"].to_list()]

    @staticmethod
    def of(item: str) -> float:
        number = int(item.split("-")[1])
        return -np.inf if number < 5 else float(number // 2)


class Equal:
    """A scorer that knows nothing."""

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        return [np.zeros(size) for size in cases["candidates"].list.len()]


@pytest.fixture(scope="module")
def index(dataset: Dataset, split: Split) -> Index:
    """Index of the training part."""
    return Index.build(dataset, histories=split.train)


def _row(dataset: Dataset, split: Split, scorer: Scorer, **options: object) -> RowResult:
    found = evaluate(dataset, {"mine": scorer}, split=split, settings=["warm"], candidates="all", **options)  # type: ignore[arg-type]
    return found.settings["warm"].rows["mine"]


def _lists(dataset: Dataset, split: Split, cases: pl.DataFrame, scorer: Scorer, seed: int) -> list[list[str]]:
    """The whole catalogue in the order of a scorer, by a sort of each case."""
    order = Catalogue(dataset, split, seed).items.to_list()
    lists = []
    for user, history in cases.select("user_id", "history").iter_rows():
        items = [item for item in order if item not in history]
        case = pl.DataFrame({"user_id": [user], "history": [history], "candidates": [items]})
        (scores,) = scorer.score(case)
        # Items without a score are shown to nobody.
        shown = [place for place in range(len(items)) if scores[place] > -np.inf]
        hidden = [place for place in range(len(items)) if scores[place] == -np.inf]
        lists.append([items[place] for place in (*sorted(shown, key=lambda place: -scores[place]), *hidden)])
    return lists


@pytest.mark.parametrize("kind", ["popularity", "tf-idf", "ties"])
@pytest.mark.parametrize("seed", [0, 3])
def test_ranks_and_metrics_equal_a_loop(dataset: Dataset, split: Split, kind: str, seed: int) -> None:
    data = TrainingData(dataset, split)
    scorer = {"popularity": Popularity().fit(data), "tf-idf": TfIdf().fit(data), "ties": BySum()}[kind]
    cases = split.test["warm"]
    row = _row(dataset, split, scorer, seed=seed)
    lists = _lists(dataset, split, cases, scorer, seed)
    ranks = [items.index(target) + 1 for items, target in zip(lists, cases["target"].to_list(), strict=True)]
    assert row.ranks.tolist() == ranks
    assert row.metrics["recall@10"].mean == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    assert row.metrics["recall@100"].mean == 1
    gains = [1 / math.log2(rank + 1) if rank <= 10 else 0 for rank in ranks]
    assert row.metrics["ndcg@10"].mean == pytest.approx(np.mean(gains))
    assert row.metrics["mrr"].mean == pytest.approx(np.mean([1 / rank for rank in ranks]))


@pytest.mark.parametrize("kind", ["popularity", "tf-idf", "ties"])
def test_properties_equal_a_loop(dataset: Dataset, split: Split, kind: str) -> None:
    data = TrainingData(dataset, split)
    scorer = {"popularity": Popularity().fit(data), "tf-idf": TfIdf().fit(data), "ties": BySum()}[kind]
    cases = split.test["warm"]
    found = _row(dataset, split, scorer).properties
    top = [items[:10] for items in _lists(dataset, split, cases, scorer, 0)]
    histories = split.train["history"].to_list()
    catalogue = list(dataset.titles)
    assert found["coverage@10"] == len({item for items in top for item in items}) / len(catalogue)
    exposure = [sum(item in items for items in top) for item in catalogue]
    differences = sum(abs(a - b) for a in exposure for b in exposure)
    assert found["gini@10"] == pytest.approx(differences / (2 * len(catalogue) * sum(exposure)))
    choosers = {item: max(1, sum(item in history for history in histories)) for item in catalogue}
    novelty = [np.mean([-math.log2(choosers[item] / len(histories)) for item in items]) for items in top]
    assert found["novelty@10"] == pytest.approx(np.mean(novelty))


def test_slices_change_nothing(dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = TfIdf().fit(TrainingData(dataset, split))
    whole = _row(dataset, split, scorer)
    monkeypatch.setattr("lorarec.evaluation.catalogue._CANDIDATES_AT_ONCE", 150)
    heights = []

    class Spy:
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            heights.append(cases.height)
            return scorer.score(cases)

    sliced = _row(dataset, split, Spy())
    assert set(heights[:-1]) == {2}
    assert sliced.ranks.tolist() == whole.ranks.tolist()
    assert sliced.properties == whole.properties


@pytest.mark.parametrize("shown", [True, False])
def test_progress_counts_the_cases(
    dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    monkeypatch.setattr("lorarec.evaluation.catalogue._CANDIDATES_AT_ONCE", 150)
    monkeypatch.setattr("lorarec.io.progress.INTERVAL", 0.01)

    class Slow(TfIdf):
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            time.sleep(0.02)
            return super().score(cases)

    evaluate(
        dataset,
        {"slow": Slow().fit(TrainingData(dataset, split))},
        split=split,
        settings=["warm"],
        candidates="all",
        progress=shown,
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Ranking all items: ")]
    assert bool(lines) == shown
    assert all(f" of {split.test['warm'].height:,} (" in line for line in lines)


def test_a_fusion_has_one_prior_for_all_slices(dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.ranking.fusion.MIN_CASES", 1)
    fusion = fuse(dataset, recommenders=("item-knn", "tf-idf"), split=split, config=FusionConfig(pool=0))
    whole = _row(dataset, split, fusion)
    assert f"prior of new items {fusion.new_item_share:.3g}" in whole.about
    monkeypatch.setattr("lorarec.evaluation.catalogue._CANDIDATES_AT_ONCE", 150)
    sliced = _row(dataset, split, fusion)
    assert sliced.ranks.tolist() == whole.ranks.tolist()
    assert sliced.about == whole.about


def test_a_scorer_that_knows_nothing_ranks_at_random(dataset: Dataset, split: Split) -> None:
    shares = [np.mean(_row(dataset, split, Equal(), seed=seed).ranks) / len(dataset.titles) for seed in range(8)]
    assert 0.4 < np.mean(shares) < 0.6


def test_scorers_see_everything_but_the_history_and_the_target(dataset: Dataset, split: Split) -> None:
    seen = []

    class Spy(Equal):
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            seen.append(cases)
            return super().score(cases)

    _row(dataset, split, Spy(), limit=5)
    (cases,) = seen
    assert cases.columns == ["user_id", "history", "candidates"]
    for history, candidates in cases.select("history", "candidates").iter_rows():
        assert sorted([*set(history), *candidates]) == sorted(dataset.titles)


def test_pools_are_ranked_as_by_their_ranks_of_all_candidates(dataset: Dataset, split: Split, index: Index) -> None:
    class Ranks:
        """The same pools through the method that all scorers have."""

        returns_ranks = True

        def __init__(self, scorer: PoolScorer) -> None:
            self.score = scorer.score

    for scorer in pool_scorers(index, {"ties": Equal()}, pool=2).values():
        pools, ranks = _row(dataset, split, scorer), _row(dataset, split, Ranks(scorer))
        assert pools.ranks.tolist() == ranks.ranks.tolist()
        assert pools.properties == ranks.properties
        assert np.isinf(pools.ranks).any()
        assert pools.metrics == ranks.metrics
        assert pools.metrics["recall@100"].mean == np.isfinite(pools.ranks).mean()
        assert pools.about.startswith("the 2 items that an index proposes")


def test_a_pool_scorer_gets_all_cases_at_once(dataset: Dataset, split: Split, index: Index) -> None:
    heights = []

    class Spy(Equal):
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            heights.append((cases.height, cases["candidates"].list.len().max()))
            return super().score(cases)

    _row(dataset, split, PoolScorer(index, Spy(), 7))
    assert heights == [(split.test["warm"].height, 7)]


def test_a_scorer_that_shows_nothing_has_no_properties(dataset: Dataset, split: Split) -> None:
    class Nothing:
        returns_ranks = True

        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            return [np.full(size, np.inf) for size in cases["candidates"].list.len()]

    row = _row(dataset, split, Nothing())
    assert row.properties == {}
    assert row.metrics["mrr"].mean == 0


def test_cases_whose_right_item_is_in_the_history_are_left_out(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    cases = split.test["warm"]
    repeated = pl.Series("target", [history[0] for history in cases["history"].to_list()[:3]])
    some = cases.with_columns(pl.concat([repeated, cases["target"][3:]]).alias("target"))
    assert without_repeats("warm", some).equals(cases[3:])
    changed = replace(split, test={**split.test, "warm": some})
    result = evaluate(dataset, {}, split=changed, settings=["warm"], candidates="all", out=tmp_path / "out")
    warm = result.settings["warm"]
    assert (warm.repeats, warm.cases) == (3, len(cases) - 3)
    assert "3 cases whose target item is in the history are left out" in (tmp_path / "out" / "report.md").read_text()
    only = replace(split, test={"warm": some[:3]})
    with pytest.raises(LorarecError, match="setting warm: no case is left, since the target item of each is in"):
        evaluate(dataset, {}, split=only, candidates="all")


def test_report_and_tables(dataset: Dataset, split: Split, index: Index, tmp_path: Path) -> None:
    out = tmp_path / "report"
    rows = pool_scorers(index, {"equal": Equal()}, pool=20)
    evaluation = evaluate(dataset, rows, split=split, candidates="all", compare_with="index", out=out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics == evaluation.as_dict()
    assert metrics["candidates"] == "all"
    warm = metrics["settings"]["warm"]
    assert warm["catalogue"] == len(dataset.titles)
    assert {"recall@10", "recall@100", "ndcg@10", "mrr", "coverage@10", "gini@10", "novelty@10"} < warm["rows"][
        "index+equal"
    ].keys()
    assert warm["rows"]["index"]["mrr"]["p"] is None
    assert warm["rows"]["index+equal"]["mrr"]["p"] is not None
    report = (out / "report.md").read_text()
    header = next(line for line in report.splitlines() if line.startswith("| row"))
    assert header == ("| row | RECALL@10 | RECALL@100 | NDCG@10 | MRR | COVERAGE@10 | GINI@10 | NOVELTY@10 | s/user |")
    assert "All rows ranked the 60 items of the catalogue" in report
    assert "![NDCG@10 and RECALL@100 with intervals](ndcg.png)" in report
    assert "items that nobody chose count as if one user had" in report
    console = Console(width=80)
    with console.capture() as capture:
        console.print(evaluation_table(evaluation, "warm"))
    assert all(name in capture.get() for name in ("RECALL@10 ", "RECALL@100", "NDCG@10", "index+equal"))


def test_the_best_baseline_by_ndcg_10_is_compared_with(dataset: Dataset, split: Split) -> None:
    evaluation: Evaluation = evaluate(dataset, {}, split=split, settings=["warm"], candidates="all")
    rows = evaluation.settings["warm"].rows
    best = max(("popularity", "item-knn", "tf-idf"), key=lambda name: rows[name].metrics["ndcg@10"].mean)
    assert evaluation.settings["warm"].compare_with == best


def test_bad_scorers_and_candidates_are_refused(dataset: Dataset, split: Split) -> None:
    class Nan(Equal):
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            return [np.full(size, np.nan) for size in cases["candidates"].list.len()]

    class Meddler(Equal):
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            cases.replace_column(2, cases["candidates"].list.reverse())
            return super().score(cases)

    class Short(Equal):
        def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
            return super().score(cases)[:-1]

    for scorer, message in (
        (Nan(), "row mine, setting warm: case 0: a score is NaN"),
        (Meddler(), "row mine, setting warm: the scorer changed the cases"),
        (Short(), "row mine, setting warm: scores of 27 cases for 28 cases"),
    ):
        with pytest.raises(LorarecError, match=message):
            _row(dataset, split, scorer)
    with pytest.raises(LorarecError, match="no candidates 'some': choose one of stored, all"):
        evaluate(dataset, {}, split=split, candidates="some")  # type: ignore[arg-type]


def test_the_hash_tells_the_catalogue_and_stored_candidates_apart(dataset: Dataset, split: Split) -> None:
    hashes = [
        evaluate(dataset, {}, split=split, settings=["warm"], limit=4, **options).settings["warm"].candidates  # type: ignore[arg-type]
        for options in ({}, {"candidates": "all"}, {"candidates": "all", "seed": 1})
    ]
    assert len(set(hashes)) == 3


def test_stored_candidates_have_no_properties(dataset: Dataset, split: Split) -> None:
    assert rank_cases("mine", Equal(), "warm", split.test["warm"], None).properties == {}

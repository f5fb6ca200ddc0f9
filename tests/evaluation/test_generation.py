"""Rows that write lists of titles."""

import numpy as np
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.evaluation import adapter_scorers, evaluate
from lorarec.evaluation.generation import GenerationScorer
from lorarec.ranking import Ranker, generate_titles


def test_places_are_those_of_the_list(tiny_backbone: Backbone, dataset: Dataset, split: Split) -> None:
    cases = split.test["warm"].head(2)
    row = GenerationScorer(tiny_backbone, dataset.titles, count=3, constrained=True)
    with Ranker(tiny_backbone, readout="likelihood") as ranker:
        for place, example in zip(row.score(cases), ranker.examples(cases, dataset.titles), strict=True):
            listed = generate_titles(tiny_backbone, ranker.builder, example, 3, constrained=True)
            assert [place[index] for index in listed if index is not None] == [1, 2, 3]
            assert np.isinf(place).sum() == len(example.branches) - 3
    assert "constrained to the candidates" in row.about
    assert "0.0% of the places lost" in row.about


def test_what_is_not_named_has_no_place_and_earns_nothing(
    tiny_backbone: Backbone, dataset: Dataset, split: Split
) -> None:
    """A random model writes no title exactly."""
    rows = adapter_scorers(tiny_backbone, dataset, split, {}, generation="free")
    found = evaluate(dataset, rows, split=split, settings=["warm"], limit=2).settings["warm"].rows["zero-shot"]
    assert np.isinf(found.ranks).all()
    assert found.metrics["ndcg@10"].mean == found.metrics["mrr"].mean == 0
    assert "100.0% of the places lost" in found.about


def test_lost_places_count(dataset: Dataset, split: Split) -> None:
    class Second:
        """Names the right item behind a lost place."""

        returns_ranks = True

        def score(self, cases):
            targets = split.test["warm"]["target"]
            pairs = zip(cases["candidates"].to_list(), targets, strict=True)
            return [np.where(np.array(items) == target, 2.0, np.inf) for items, target in pairs]

    found = evaluate(dataset, {"second": Second()}, split=split, settings=["warm"])
    figures = found.settings["warm"].rows["second"].metrics
    assert figures["ndcg@1"].mean == 0
    assert figures["ndcg@3"].mean == pytest.approx(1 / np.log2(3))
    assert figures["mrr"].mean == 0.5


def test_unknown_generation(tiny_backbone: Backbone, dataset: Dataset, split: Split) -> None:
    with pytest.raises(LorarecError, match="choose one of free, constrained"):
        adapter_scorers(tiny_backbone, dataset, split, {}, generation="sampled")
    with pytest.raises(LorarecError, match="leave out readout=verdict"):
        adapter_scorers(tiny_backbone, dataset, split, {}, readout="verdict", generation="free")

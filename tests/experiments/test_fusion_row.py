"""The fusion as a row: its options, its place among adapters in the cache, and whole catalogues."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lorarec.errors import LorarecError
from lorarec.experiments.fusion_row import FusionRow
from lorarec.experiments.index_row import catalogue_scorer
from lorarec.ranking import Fusion, PoolScorer
from lorarec.ranking.fusion import MIN_CASES
from lorarec.recommenders import TrainingData
from tests.factories import circle_log

CHEAP = {"knn": {"system": "item-knn", "max_history": 5}, "tf-idf": None, "popularity": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    dataset, split = circle_log("circles", new_items=0.2)
    return TrainingData(dataset, replace(split, test={}), cache_dir=tmp_path_factory.mktemp("cache"))


def test_systems_have_names_and_options_of_their_own(data: TrainingData) -> None:
    row = FusionRow.from_options({"systems": CHEAP, "pool": 0}).fit(data)
    assert list(row.fusion.group.recommenders) == ["knn", "tf-idf", "popularity"]
    assert row.fusion.group.recommenders["knn"].config.max_history == 5
    scores = row.score(data.split.valid.head(3))
    assert [np.exp(each).sum() for each in scores] == pytest.approx([1, 1, 1])
    assert "knn, tf-idf, popularity" in row.about


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"systems": {}}, "option systems must be a mapping"),
        ({"systems": ["sasrec"]}, "option systems must be"),
        ({"systems": {"psychic": {}}}, "no system 'psychic': choose one of"),
        ({"systems": {"fusion": {}}}, "no system 'fusion'"),
        ({"systems": {"sasrec": 3}}, "option systems: sasrec must be a mapping of options, got 3"),
        ({"systems": {"sasrec": {"epoch": 1}}}, "sasrec: unknown option 'epoch'"),
        ({"systems": {"sasrec": {"epochs": -1}}}, "sasrec: option epochs"),
        ({"pools": 1}, "unknown option 'pools'"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        FusionRow.from_options(options)


def test_a_whole_catalogue_is_scored_exactly_with_one_prior(data: TrainingData) -> None:
    """Without a language model, no index is needed, and the prior does not depend on how the cases are sliced."""
    row = FusionRow.from_options({"systems": CHEAP, "pool": 0}).fit(data)
    scorer = catalogue_scorer(row, data, pool=10)
    assert isinstance(scorer, Fusion)
    catalogue = list(data.dataset.titles)
    cases = data.split.valid.with_columns(pl.Series("candidates", [catalogue] * len(data.split.valid)))
    assert len(cases) >= MIN_CASES  # so that the prior would be estimated from all of them, but not from three
    for found, alone in zip(scorer.score(cases)[:3], scorer.score(cases.head(3)), strict=True):
        np.testing.assert_array_equal(found, alone)


def test_a_language_model_ranks_a_pool(data: TrainingData) -> None:
    row = FusionRow.from_options({"systems": CHEAP, "pool": 10}).fit(data)
    row.fusion.group.recommenders["knn"].scores_catalogue = False  # type: ignore[misc]
    scorer = catalogue_scorer(row, data, pool=10)
    assert isinstance(scorer, PoolScorer)
    assert "next" not in scorer.index.sources  # the index is the fusion's, which has no next-item model
    ranked = scorer.rank_catalogue(data.split.valid.head(2))
    assert [len(each) for each in ranked] == [10, 10]
    first = data.split.valid.head(1)
    proposed = [each.item_id for each in scorer.index.propose(first["history"][0].to_list(), 10)]
    pool = first.with_columns(pl.Series("candidates", [proposed]))
    expected = row.fusion.score_with_parts(pool, pool=True)[0].log_probabilities
    order = np.argsort(-expected, kind="stable")
    assert ranked[0] == [proposed[place] for place in order]

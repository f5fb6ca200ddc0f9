"""Two-stage ranking as a scorer: the order of `recommend`, ranks of given candidates, and bad scores."""

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, histories_of
from lorarec.errors import LorarecError
from lorarec.ranking import (
    AdapterScorer,
    Fusion,
    PoolScorer,
    Ranker,
    fuse,
    fusion_catalogue_scorer,
    log_prior,
    pool_scorers,
    recommend_users,
)
from lorarec.recommenders import FusionConfig
from lorarec.retrieval import Index
from tests.factories import random_adapter


class Fixed:
    """A scorer of items by numbers given, or of ranks."""

    def __init__(self, values: dict[str, float], returns_ranks: bool = False) -> None:
        self.values, self.returns_ranks, self.seen = values, returns_ranks, pl.DataFrame()

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        self.seen = cases
        return [np.array([self.values[item] for item in candidates]) for candidates in cases["candidates"]]


@pytest.fixture(scope="module")
def index(dataset: Dataset, split: Split) -> Index:
    """Index of the training part."""
    return Index.build(dataset, histories=split.train)


def whole(dataset: Dataset, cases: pl.DataFrame) -> pl.DataFrame:
    """The cases with every item that is not in the history as a candidate."""
    items = dataset.items["item_id"].to_list()
    rest = [[item for item in items if item not in history] for history in cases["history"].to_list()]
    return cases.with_columns(pl.Series("candidates", rest))


def test_the_order_is_that_of_recommend(dataset: Dataset, tiny_backbone: Backbone) -> None:
    index, users = Index.build(dataset), ["u00", "u07"]
    scorer = PoolScorer(index, AdapterScorer(tiny_backbone, dataset.titles), pool=15)
    found = scorer.rank_catalogue(histories_of(dataset.interactions).filter(pl.col("user_id").is_in(users)))
    with Ranker(tiny_backbone) as ranker:
        wanted = recommend_users(ranker, dataset, users, top_k=15, pool=15, index=index)
    assert found == [[item.item_id for item in wanted[user]] for user in users]


def test_without_a_scorer_the_order_is_the_indexs(dataset: Dataset, split: Split, index: Index) -> None:
    cases = split.test["warm"]
    found = PoolScorer(index, pool=12).rank_catalogue(cases)
    assert found == [[item.item_id for item in index.propose(history, 12)] for history in cases["history"].to_list()]


@pytest.mark.parametrize("prior", [True, False])
def test_ranks_are_the_places_in_the_order_and_others_have_none(
    dataset: Dataset, split: Split, index: Index, prior: bool
) -> None:
    values = dict(zip(dataset.titles, np.random.default_rng(0).normal(size=len(dataset.titles)), strict=True))
    inner = Fixed(values)
    scorer, cases = PoolScorer(index, inner, 10, prior=prior), whole(dataset, split.test["warm"])
    order, ranks = scorer.rank_catalogue(cases), scorer.score(cases)
    assert inner.seen.columns == ["user_id", "history", "candidates"]
    for ranked, of_case, candidates, history in zip(
        order, ranks, cases["candidates"].to_list(), cases["history"].to_list(), strict=True
    ):
        found = {item: rank for item, rank in zip(candidates, of_case, strict=True) if np.isfinite(rank)}
        assert found == {item: rank for rank, item in enumerate(ranked, 1)}
        pool = [item.item_id for item in index.propose(history, 10)]
        scores = np.array([values[item] for item in pool]) + (log_prior(10) if prior else 0)
        assert ranked == [pool[place] for place in np.argsort(-scores)]


def test_only_candidates_are_in_the_pool(dataset: Dataset, split: Split, index: Index) -> None:
    cases = split.test["warm"]
    scorer = PoolScorer(index, Fixed(dict.fromkeys(dataset.titles, 0.0)), pool=100)
    for ranks in scorer.score(cases):
        assert sorted(ranks) == list(range(1, 11))  # popularity at last proposes every candidate


def test_ranks_of_a_scorer_that_returns_ranks_are_kept(dataset: Dataset, split: Split, index: Index) -> None:
    cases = split.test["warm"].head(1)
    pool = [item.item_id for item in index.propose(cases["history"][0].to_list(), 6)]
    ranks = dict(zip(pool, [np.inf, 3, 1, np.inf, 2, np.inf], strict=True))
    assert PoolScorer(index, Fixed(ranks, returns_ranks=True), 6).rank_catalogue(cases) == [[pool[2], pool[4], pool[1]]]


def test_a_user_of_everything_has_an_empty_pool(dataset: Dataset, split: Split, index: Index) -> None:
    everything = list(dataset.titles)
    cases = split.test["warm"].head(2).with_columns(pl.Series("history", [everything, everything[:3]]))
    scorer = PoolScorer(index, Fixed(dict.fromkeys(everything, 0.0)), pool=5)
    assert list(map(len, scorer.rank_catalogue(cases))) == [0, 5]
    assert scorer.rank_catalogue(cases.head(1)) == [[]]


def test_rows_are_named_and_described(index: Index) -> None:
    inner = Fixed({})
    inner.about = "a model"  # type: ignore[attr-defined]
    rows = pool_scorers(index, {"mine": inner}, pool=7)
    assert list(rows) == ["index", "index+mine"]
    assert rows["index"].about == (
        "the 7 items that an index proposes from together, rules, title, new, popular, in its order; other items have "
        "no rank"
    )
    assert rows["index+mine"].about.endswith(", re-ranked with its order as a prior; other items have no rank; a model")


@pytest.mark.parametrize("bad", [np.full(5, np.nan), np.zeros(4)])
def test_scores_that_fit_no_pool_are_refused(split: Split, index: Index, bad: np.ndarray) -> None:
    inner = Fixed({})
    inner.score = lambda cases: [bad]  # type: ignore[method-assign]
    with pytest.raises(LorarecError, match="a scorer gave a pool of 5 items scores of shape"):
        PoolScorer(index, inner, 5).rank_catalogue(split.test["warm"].head(1))


def test_an_empty_pool_is_refused(index: Index) -> None:
    with pytest.raises(LorarecError, match="a pool must have at least one item, got 0"):
        PoolScorer(index, pool=0)


def test_a_fusion_ranks_the_whole_catalogue_or_what_its_own_index_proposes(
    dataset: Dataset, split: Split, shared_backbone: Backbone
) -> None:
    cheap, adapter = ("item-knn", "tf-idf"), {"mine": random_adapter(shared_backbone, 1)}
    exact = fuse(dataset, recommenders=cheap, split=split, config=FusionConfig(pool=0))
    scorer, cases = fusion_catalogue_scorer(exact, pool=5), whole(dataset, split.test["warm"])
    assert isinstance(scorer, Fusion)
    for found, expected in zip(scorer.score(cases), exact.with_fixed_prior().score(cases), strict=True):
        np.testing.assert_array_equal(found, expected)
    mixed, without = (
        fuse(dataset, adapter, cheap, backbone=shared_backbone, split=split, config=FusionConfig(pool=pool, cases=10))
        for pool in (10, 0)
    )
    pooled = fusion_catalogue_scorer(mixed, pool=5)
    assert isinstance(pooled, PoolScorer)
    histories = split.test["warm"]["history"].to_list()
    own = [{each.item_id for each in mixed.index().propose(history, 5)} for history in histories]
    assert [set(pool) for pool in pooled.rank_catalogue(split.test["warm"])] == own
    with pytest.raises(LorarecError, match="was not fitted to candidates of an index: fit it with option pool above 0"):
        fusion_catalogue_scorer(without)

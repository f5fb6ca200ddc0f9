"""The order of an index as a row of a table, and rows that rank what the index proposes out of a whole catalogue."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from lorarec.experiments.fusion_row import FusionRow
from lorarec.ranking import PoolScorer, fusion_catalogue_scorer
from lorarec.recommenders import (
    Recommender,
    RecommenderConfig,
    SASRecConfig,
    Scorer,
    ScorerRecommender,
    TrainingData,
    cached_dir,
)
from lorarec.retrieval import INDEX_VERSION, Index


class IndexOrder(ScorerRecommender[RecommenderConfig]):
    """Rank candidates in the order of an index of the training part, whose next-item model is SASRec."""

    config_class = RecommenderConfig
    version = INDEX_VERSION
    scores_new_items = True
    scores_catalogue = False
    returns_ranks = True

    def fit(self, data: TrainingData) -> Self:
        """Build the index unless it is in the cache."""
        self.scorer = PoolScorer(training_index(data))
        return self


def catalogue_scorer(recommender: Recommender[Any], data: TrainingData, pool: int) -> Scorer:
    """Return the scorer with which a fitted recommender ranks a whole catalogue.

    Args:
        recommender: Fitted recommender. If it cannot score the whole catalogue, it orders what `training_index`
            proposes, or, if it is a fusion, what its own index proposes.
        data: Data that `training_index` is built of.
        pool: Number of items that the index proposes.
    """
    if recommender.scores_catalogue:
        return recommender
    if isinstance(recommender, FusionRow):
        return fusion_catalogue_scorer(recommender.fusion, pool)
    return PoolScorer(training_index(data), None if isinstance(recommender, IndexOrder) else recommender, pool)


def training_index(data: TrainingData) -> Index:
    """Return the index of the training part, which is built if it is not in the cache.

    Raises:
        LorarecError: The data have no cache_dir.
    """
    config = SASRecConfig()

    def write(out: Path) -> None:
        Index.build(data.dataset, config, data.split.train, seed=data.seed, progress=data.progress).save(out)

    key = [data.dataset.fingerprint, data.split.fingerprint, asdict(config), data.seed, INDEX_VERSION]
    return Index.load(cached_dir(data, "index", key, write), data.dataset)

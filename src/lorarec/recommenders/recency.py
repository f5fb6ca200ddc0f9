"""Recency: popularity with exponential decay, so that recent interactions count more."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from lorarec.data import EARLIEST_MOMENT, HISTORY, ITEM, TIME, USER, Dataset
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.baselines import CountRecommender
from lorarec.recommenders.recommender import Requirement
from lorarec.recommenders.recommender_config import RecommenderConfig
from lorarec.recommenders.training_data import TrainingData

_SECONDS_PER_DAY = 86_400
_NUMBER = "number"


@document_options
@dataclass(frozen=True)
class RecencyConfig(RecommenderConfig):
    """Options of `Recency`."""

    half_life: float = option(30.0, "Number of days after which an interaction counts half.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, (), (), ("half_life",))


class Recency(CountRecommender[RecencyConfig]):
    """Score a candidate by its number of training interactions, of which recent ones count more.

    An interaction t days before the last one of the training part counts 2^(-t / half_life); items without any have
    score 0. This is popularity at the end of the training part (Ji et al., SIGIR 2020, A Re-visit of the Popularity
    Baseline in Recommender Systems), the right one for requests that come after it. With leave-one-out the requests of
    some users are earlier, so that it knows more of the time after them than a recommender in use would, as all
    recommenders do in this protocol.
    """

    config_class = RecencyConfig

    @property
    def about(self) -> str:
        """One line for reports."""
        return (
            f"number of interactions with the item in training, which count half after {self.config.half_life:g} days"
        )

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return frozenset({"times"})

    def fit(self, data: TrainingData) -> Self:
        """Add up the decayed interactions with every item.

        Raises:
            LorarecError: The timestamps of the dataset are positions in a sequence and no moments, or the training part
                has interactions that the dataset does not have.
        """
        self.items, self.item_rows = data.dataset.items[ITEM], data.item_rows
        interactions = _training_times(data.dataset, data.split.train)
        rows = interactions[ITEM].replace_strict(self.item_rows, return_dtype=pl.Int64).to_numpy()
        moments = interactions[TIME].to_numpy()
        days = (moments.max(initial=0) - moments) / _SECONDS_PER_DAY
        self.counts = np.bincount(rows, np.exp2(-days / self.config.half_life), minlength=len(self.items))
        return self


def _training_times(dataset: Dataset, train: pl.DataFrame) -> pl.DataFrame:
    """Return the columns `item_id` and `timestamp` of all interactions of training histories.

    If a user interacted with an item several times, those in the history are the first ones.

    Args:
        dataset: Dataset whose timestamps are moments.
        train: Columns `user_id` and `history`.

    Raises:
        LorarecError: The timestamps are positions in a sequence, or an interaction is not in the dataset.
    """
    latest = int(dataset.interactions[TIME].to_numpy().max(initial=0))
    if latest < EARLIEST_MOMENT:
        raise LorarecError(
            f"{dataset.name}: recency needs the times of interactions, but its timestamps are positions (up to "
            f"{latest}): leave out recency, or import the data with times"
        )
    number = pl.int_range(pl.len()).over(USER, ITEM).alias(_NUMBER)  # tells repeated interactions apart
    given = train.select(USER, pl.col(HISTORY).alias(ITEM)).explode(ITEM).drop_nulls(ITEM).with_columns(number)
    timed = given.join(dataset.interactions.select(USER, ITEM, TIME, number), on=[USER, ITEM, _NUMBER], how="left")
    missing = timed.filter(pl.col(TIME).is_null())
    if len(missing):
        user, item = missing.row(0)[:2]
        raise LorarecError(
            f"{dataset.name}: recency needs the times of interactions, but that of user {user} with item {item} is not "
            "in the dataset: leave out recency, or use a split of this dataset"
        )
    return timed.select(ITEM, TIME)

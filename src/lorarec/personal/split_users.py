"""One vector for each user of a split, made of its training part alone, for a router to read."""

from pathlib import Path

import numpy as np
import polars as pl

from lorarec.backbone.load import Backbone
from lorarec.conventional import Conventional, FitOptions, fit
from lorarec.data import Dataset, Split
from lorarec.data.clicks import click_log
from lorarec.data.columns import HISTORY, ITEM, RATING, TITLE, USER
from lorarec.errors import LorarecError
from lorarec.personal.embeddings import title_embeddings
from lorarec.personal.few2many import given_recommender
from lorarec.personal.users import REPRESENTATION, user_representations

EVENTS = "events"
#: In place of a conventional recommender: the mean embedding of the titles in a user's training history.
TITLES = "titles"


def training_part(dataset: Dataset, split: Split) -> Dataset:
    """The dataset of the interactions that are in `split.train`, and no others.

    Where a user met an item more than once, the earlier times are those in training.
    """
    time = pl.int_range(pl.len()).over(USER, ITEM).alias("time")
    trained = split.train.select(USER, pl.col(HISTORY).alias(ITEM)).explode(ITEM).drop_nulls().with_columns(time)
    rows = dataset.interactions.with_columns(time)
    kept = rows.join(trained, on=(USER, ITEM, "time"), how="semi", maintain_order="left").drop("time")
    return dataset.subset(kept, filter_note="training part of the split")


def fit_on_training_part(
    crm: str | Path, dataset: Dataset, split: Split, positive_from: float, stars: float, seed: int, progress: bool
) -> Conventional:
    """A conventional recommender of the training part, divided by time within itself; fitted, or read from a folder.

    Raises:
        LorarecError: the dataset has no ratings, they or the recommender's name are unusable, or the folder's was
            trained on other data than this training part.
    """
    part = training_part(dataset, split)
    if part.interactions[RATING].null_count() == len(part.interactions):
        raise LorarecError(
            f"{dataset.name} has no ratings, which conventional recommenders learn from: import them, or take "
            f"crm={TITLES} (--crm {TITLES}), which reads users from the titles of their histories"
        )
    log = click_log(part, positive_from=positive_from, stars=stars)
    return given_recommender(crm, log) or fit(str(crm), log, FitOptions(seed=seed), progress=progress)


def split_users(
    backbone: Backbone, dataset: Dataset, split: Split, recommender: Conventional | None = None
) -> pl.DataFrame:
    """Every user of the split's training, validation and test parts: user_id, events and representation.

    `events` is the length of the training history. A representation has the numbers of `user_representations` (or of
    the mean title embedding, without a recommender) and log(1 + events), each with mean 0 and deviation 1 over the
    users. So the length weighs as much as any other number when the router's LayerNorm divides a user's numbers by
    their common deviation. A user of whom training says nothing else has zeros, the mean, and its length.

    Args:
        recommender: of the training part, see `fit_on_training_part`.
    """
    parts = [split.train, split.valid, *split.test.values()]
    users = pl.concat([part.select(USER) for part in parts]).unique().sort(USER)
    lengths = split.train.select(USER, pl.col(HISTORY).list.len().cast(pl.Int64).alias(EVENTS))
    if recommender is None:
        found = _title_means(backbone, training_part(dataset, split))
    else:
        found = user_representations(recommender)
    table = users.join(lengths, on=USER, how="left", maintain_order="left").with_columns(pl.col(EVENTS).fill_null(0))
    table = table.join(found, on=USER, how="left", maintain_order="left")
    known = table[REPRESENTATION].is_not_null().to_numpy()
    told = table.filter(known)[REPRESENTATION].to_numpy()
    numbers = np.zeros((len(table), told.shape[1] + 1))
    numbers[known, :-1] = _standardised(told)
    numbers[:, -1] = _standardised(np.log1p(table[EVENTS].to_numpy()))
    return table.with_columns(pl.Series(REPRESENTATION, numbers.astype(np.float32)))


def _title_means(backbone: Backbone, part: Dataset) -> pl.DataFrame:
    """user_id and representation: the mean of `title_embeddings` over what the user met."""
    rows = part.interactions
    vectors = title_embeddings(backbone, part.items[TITLE].to_list())
    item = rows[ITEM].cast(pl.Enum(part.items[ITEM])).to_physical().to_numpy()
    counts = rows.group_by(USER, maintain_order=True).len()
    sizes = counts["len"].to_numpy().astype(np.int64)
    means = np.add.reduceat(vectors[item], np.cumsum(sizes) - sizes) / sizes[:, None]
    return pl.DataFrame({USER: counts[USER], REPRESENTATION: means.astype(np.float32)})


def _standardised(values: np.ndarray) -> np.ndarray:
    """Each column with mean 0 and deviation 1; one that is the same for all becomes zeros."""
    values = values.astype(np.float64)
    return (values - values.mean(0)) / (values.std(0) + 1e-6)

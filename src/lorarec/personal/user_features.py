"""One vector for each user of a split, made of its training part alone, for a router to read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lorarec.backbone import Backbone, title_embeddings
from lorarec.ctr import CTRConfig, CTRModel, fit
from lorarec.data import HISTORY, ITEM, RATING, TITLE, USER, Dataset, Split, click_log
from lorarec.errors import LorarecError
from lorarec.personal.config import TITLES
from lorarec.personal.few2many import given_ctr_model
from lorarec.personal.user_adapters import REPRESENTATION, user_representations

EVENTS, VECTOR = "events", "vector"
#: Deviations up to here are those of numbers that are the same for all.
ALIKE = 1e-6
#: In place of a conventional recommender: the mean embedding of the titles in a user's training history.


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
    ctr_model: str | Path, dataset: Dataset, split: Split, positive_from: float, stars: float, seed: int, progress: bool
) -> CTRModel:
    """Fit a click-through model to the training part, which is split by time for it, or load one from a folder.

    Raises:
        LorarecError: If the dataset has no ratings or unusable ones, `ctr_model` is neither a name nor a folder, or the
            model in the folder was trained on other data than this training part.
    """
    part = training_part(dataset, split)
    if part.interactions[RATING].null_count() == len(part.interactions):
        raise LorarecError(
            f"{dataset.name} has no ratings, which click-through models are trained on: import them, or use ctr_model "
            f"{TITLES}, which represents users by the titles of their histories"
        )
    log = click_log(part, positive_from=positive_from, stars=stars)
    return given_ctr_model(ctr_model, log) or fit(str(ctr_model), log, CTRConfig(seed=seed), progress=progress)


@dataclass(frozen=True)
class Standardization:
    """Brings the numbers of users to mean 0 and deviation 1 over the users of a split.

    Attributes:
        mean: (d + 1,), the last of log(1 + events).
        deviation: (d + 1,) what they are divided by; 0 where all users were alike, whom nothing tells apart ever after.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, told: np.ndarray, events: np.ndarray) -> "Standardization":
        """Of what is told (n, d) of some users, and of the history lengths (m,) of all."""
        told, lengths = told.astype(np.float64), np.log1p(events)
        deviation = np.append(told.std(0), lengths.std())
        return cls(np.append(told.mean(0), lengths.mean()), np.where(deviation > ALIKE, deviation, 0))

    def as_dict(self) -> dict[str, list[float]]:
        """As JSON keeps it."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def numbers(self, told: np.ndarray, known: np.ndarray, events: np.ndarray) -> np.ndarray:
        """What a router reads of n users, (n, d + 1) float32: of one of whom nothing is told, the mean and the length.

        Args:
            told: (k, d) of those of whom something is.
            known: (n,) who they are.
            events: (n,) lengths of their histories.
        """
        values = np.tile(self.mean, (len(known), 1))
        values[known, :-1] = told
        values[:, -1] = np.log1p(events)
        apart = np.divide(values - self.mean, self.deviation, out=np.zeros_like(values), where=self.deviation > 0)
        return apart.astype(np.float32)


@dataclass(frozen=True)
class UserFeatures:
    """What is known of the users of a split.

    Attributes:
        table: user_id, events and representation of every user of the training, validation and test parts.
        standard: how the representations were standardised.
        vectors: item_id and vector of the items of the training part, where users are told apart by titles.
    """

    table: pl.DataFrame
    standard: Standardization
    vectors: pl.DataFrame | None


def user_features(
    backbone: Backbone, dataset: Dataset, split: Split, recommender: CTRModel | None = None
) -> UserFeatures:
    """What the training part says of every user of the split.

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
    vectors = None
    if recommender is None:
        part = training_part(dataset, split)
        embeddings = title_embeddings(backbone, part.items[TITLE].to_list())
        vectors = pl.DataFrame({ITEM: part.items[ITEM], VECTOR: embeddings})
        found = _title_means(vectors, part)
    else:
        found = user_representations(recommender)
    table = users.join(lengths, on=USER, how="left", maintain_order="left").with_columns(pl.col(EVENTS).fill_null(0))
    table = table.join(found, on=USER, how="left", maintain_order="left")
    known, events = table[REPRESENTATION].is_not_null().to_numpy(), table[EVENTS].to_numpy()
    told = table.filter(known)[REPRESENTATION].to_numpy()
    standard = Standardization.of(told, events)
    numbers = standard.numbers(told, known, events)
    return UserFeatures(table.with_columns(pl.Series(REPRESENTATION, numbers)), standard, vectors)


def _title_means(vectors: pl.DataFrame, part: Dataset) -> pl.DataFrame:
    """user_id and representation: the mean of the vectors over what the user met."""
    rows = part.interactions
    item = rows[ITEM].cast(pl.Enum(part.items[ITEM])).to_physical().to_numpy()
    counts = rows.group_by(USER, maintain_order=True).len()
    sizes = counts["len"].to_numpy().astype(np.int64)
    means = np.add.reduceat(vectors[VECTOR].to_numpy()[item], np.cumsum(sizes) - sizes) / sizes[:, None]
    return pl.DataFrame({USER: counts[USER], REPRESENTATION: means.astype(np.float32)})

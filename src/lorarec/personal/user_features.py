"""Representations of the users of a split, from its training part alone, as input of a router."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lorarec.backbone import Backbone, title_embeddings
from lorarec.ctr import MODELS, CTRConfig, CTRModel, fit_ctr_model
from lorarec.data import HISTORY, ITEM, RATING, TITLE, USER, ClickLog, Dataset, Split, click_log
from lorarec.errors import LorarecError
from lorarec.personal.config import TITLES
from lorarec.personal.user_adapters import REPRESENTATION, user_representations

EVENTS, VECTOR = "events", "vector"
#: Largest standard deviation of a feature that counts as the same for all users.
ALIKE = 1e-6


def training_part(dataset: Dataset, split: Split) -> Dataset:
    """Return the dataset with the interactions of `split.train` alone.

    If a user interacted with an item more than once, the earlier interactions are those in training.
    """
    time = pl.int_range(pl.len()).over(USER, ITEM).alias("time")
    trained = split.train.select(USER, pl.col(HISTORY).alias(ITEM)).explode(ITEM).drop_nulls().with_columns(time)
    rows = dataset.interactions.with_columns(time)
    training = rows.join(trained, on=(USER, ITEM, "time"), how="semi", maintain_order="left").drop("time")
    return dataset.subset(training, filter_note="training part of the split")


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
    return load_given_ctr_model(ctr_model, log) or fit_ctr_model(
        str(ctr_model), log, CTRConfig(seed=seed), progress=progress
    )


def load_given_ctr_model(ctr_model: str | Path, log: ClickLog) -> CTRModel | None:
    """Return the click-through model in a folder, or None if `ctr_model` is the name of a model to fit.

    Raises:
        LorarecError: If it is neither, or the model in the folder was trained on other data.
    """
    if str(ctr_model) in MODELS:
        return None
    if not Path(ctr_model).is_dir():
        raise LorarecError(
            f"{ctr_model!r} is neither a folder nor a click-through model: choose from {', '.join(MODELS)}"
        )
    return CTRModel.load(ctr_model, log)


@dataclass(frozen=True)
class Standardization:
    """Standardizes the features of users to mean 0 and standard deviation 1 over the users of a split.

    Attributes:
        mean: Mean of each feature, (d + 1,); the last feature is log(1 + events).
        deviation: Standard deviation of each feature, (d + 1,); 0 for a feature that is the same for all users, which
            is 0 for every user from then on.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, events: np.ndarray) -> "Standardization":
        """Fit to the features (known, d) of the users who have any, and the history lengths (users,) of all users."""
        features, lengths = features.astype(np.float64), np.log1p(events)
        deviation = np.append(features.std(0), lengths.std())
        return cls(np.append(features.mean(0), lengths.mean()), np.where(deviation > ALIKE, deviation, 0))

    def as_dict(self) -> dict[str, list[float]]:
        """Return mean and deviation as JSON stores them."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def transform(self, features: np.ndarray, known: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Return the standardized features of users, (users, d + 1) float32.

        A user without features has their mean, and the length of the history.

        Args:
            features: Features of the users who have any, (known, d).
            known: Whether each user has features, (users,).
            events: Lengths of the histories, (users,).
        """
        values = np.tile(self.mean, (len(known), 1))
        values[known, :-1] = features
        values[:, -1] = np.log1p(events)
        standardized = np.divide(
            values - self.mean, self.deviation, out=np.zeros_like(values), where=self.deviation > 0
        )
        return standardized.astype(np.float32)


@dataclass(frozen=True)
class UserFeatures:
    """Representations of the users of a split.

    Attributes:
        table: user_id, events and representation of every user of the training, validation and test parts.
        standardization: Standardization of the representations.
        vectors: item_id and vector of the items of the training part, if users are represented by titles.
    """

    table: pl.DataFrame
    standardization: Standardization
    vectors: pl.DataFrame | None


def user_features(
    backbone: Backbone, dataset: Dataset, split: Split, ctr_model: CTRModel | None = None
) -> UserFeatures:
    """Return a representation of every user of the split, from its training part.

    `events` is the length of the training history. A representation consists of the features of `user_representations`
    (or the mean title embedding, without a click-through model) and of log(1 + events), each standardized over the
    users, so that the router's LayerNorm gives the length the same weight as any other feature. A user without features
    in the training part has zeros, the mean, and the length.

    Args:
        backbone: Backbone that embeds titles.
        dataset: Dataset of the split.
        split: Split of the dataset.
        ctr_model: Click-through model of the training part (see `fit_on_training_part`), or None.
    """
    parts = [split.train, split.valid, *split.test.values()]
    users = pl.concat([part.select(USER) for part in parts]).unique().sort(USER)
    lengths = split.train.select(USER, pl.col(HISTORY).list.len().cast(pl.Int64).alias(EVENTS))
    vectors = None
    if ctr_model is None:
        part = training_part(dataset, split)
        embeddings = title_embeddings(backbone, part.items[TITLE].to_list())
        vectors = pl.DataFrame({ITEM: part.items[ITEM], VECTOR: embeddings})
        features = _title_means(vectors, part)
    else:
        features = user_representations(ctr_model)
    table = users.join(lengths, on=USER, how="left", maintain_order="left").with_columns(pl.col(EVENTS).fill_null(0))
    table = table.join(features, on=USER, how="left", maintain_order="left")
    known, events = table[REPRESENTATION].is_not_null().to_numpy(), table[EVENTS].to_numpy()
    raw = table.filter(known)[REPRESENTATION].to_numpy()
    standardization = Standardization.of(raw, events)
    standardized = standardization.transform(raw, known, events)
    return UserFeatures(table.with_columns(pl.Series(REPRESENTATION, standardized)), standardization, vectors)


def _title_means(vectors: pl.DataFrame, part: Dataset) -> pl.DataFrame:
    """Return user_id and representation, the mean vector of the items in the user's history."""
    rows = part.interactions
    item = rows[ITEM].cast(pl.Enum(part.items[ITEM])).to_physical().to_numpy()
    counts = rows.group_by(USER, maintain_order=True).len()
    sizes = counts["len"].to_numpy().astype(np.int64)
    means = np.add.reduceat(vectors[VECTOR].to_numpy()[item], np.cumsum(sizes) - sizes) / sizes[:, None]
    return pl.DataFrame({USER: counts[USER], REPRESENTATION: means.astype(np.float32)})

"""The protocol of all recommenders: a config, `fit` and `score`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import ClassVar, Generic, Literal, Self, TypeVar, cast

import numpy as np
import polars as pl
import torch

from lorarec.errors import LorarecError
from lorarec.recommenders.scorer import Scorer
from lorarec.recommenders.training_data import TrainingData

Config = TypeVar("Config")
#: What a recommender may need besides a dataset and the training part of its split: a language model, general domains,
#: validation cases, and timestamps that are moments.
Requirement = Literal["backbone", "general", "validation", "times"]


class Recommender(ABC, Generic[Config]):
    """A recommender that learns from the training part of a split and scores candidates.

    Args:
        config: Options of the recommender. The defaults of `config_class` are used if it is None.

    Attributes:
        config_class: Frozen dataclass of the options.
        version: Version of the code. It goes up when the same options and data give other scores, so that finished rows
            of experiments are done again.
        uses_seed: Whether the scores depend on `TrainingData.seed`.
        scores_catalogue: Whether all items of a catalogue can be scored for every case; if not, an index proposes some.
        can_be_tuned: Whether validation cases may judge trials of options; not if `fit` learns from their targets.
        scores_new_items: Whether the scores of items without training interactions say something about them.

    Examples:
        >>> from lorarec.recommenders import ItemKNN, ItemKNNConfig, TrainingData
        >>> from lorarec import load_sample, load_split
        >>> dataset = load_sample("thriller")
        >>> split = load_split(dataset)
        >>> scores = ItemKNN(ItemKNNConfig(max_history=5)).fit(TrainingData(dataset, split)).score(split.valid)
        >>> len(scores) == len(split.valid)
        True
    """

    config_class: ClassVar[type]
    version: ClassVar[int] = 1
    uses_seed: ClassVar[bool] = True
    scores_catalogue: ClassVar[bool] = True
    can_be_tuned: ClassVar[bool] = True
    scores_new_items: ClassVar[bool] = False

    def __init__(self, config: Config | None = None) -> None:
        self.config = cast(Config, self.config_class()) if config is None else config

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Return an unfitted recommender with these options, which are names and values of fields of its config.

        Raises:
            LorarecError: An option is unknown, or its value is of the wrong type or out of range.
        """
        names = {field.name for field in fields(cls.config_class) if field.init}
        if unknown := sorted(options.keys() - names):
            choices = ", ".join(sorted(names)) or "no options"
            raise LorarecError(f"unknown option {unknown[0]!r}: choose from {choices}")
        return cls(cls.config_class(**options))

    @property
    def about(self) -> str:
        """One line for reports."""
        return ""

    @property
    def embeds_with_backbone(self) -> bool:
        """Whether `fit` embeds texts with `TrainingData.backbone`."""
        return False

    @property
    def requirements(self) -> frozenset[Requirement]:
        """What `fit` needs besides the dataset and the training part of its split."""
        return frozenset({"backbone"}) if self.embeds_with_backbone else frozenset()

    @abstractmethod
    def fit(self, data: TrainingData) -> Self:
        """Learn from the training part of the split; validation cases may stop the training.

        Raises:
            LorarecError: The data lack something that this recommender needs.
        """

    def refit(self, data: TrainingData) -> Self:
        """Return a copy of this fitted recommender for data from which no items are hidden, to be used in a fusion.

        A recommender that scores new items keeps what it learned. How far it scores new items below known ones differs
        from one training to the next, so weights that were fitted to the scores of one are wrong for those of another.
        What is counted for its prompts, such as evidence, is counted anew.

        All others are fitted again. The hidden items were given borrowed scores, and without a second fit the
        recommender would know nothing of them. Both fits score the items that they know in the same way.

        Args:
            data: Data of the dataset of the fit, with all training interactions.

        Raises:
            LorarecError: The data lack something that this recommender needs.
        """
        other = copy.copy(self)
        return other if self.scores_new_items else other.fit(data)

    def check_update(self, data: TrainingData) -> None:
        """Check that this fitted recommender can be updated; nothing is trained.

        Args:
            data: Data that this recommender was fitted to, with the backbone if it embeds texts with it.

        Raises:
            LorarecError: This kind of recommender can neither be fitted again exactly nor be trained further, or
                something that its update needs is missing.
        """
        if type(self).tensors is Recommender.tensors:
            raise LorarecError(f"{type(self).__name__} cannot be updated: fit it again")

    def update(self, data: TrainingData, previous: TrainingData, epochs: int) -> Self:
        """Return a copy of this fitted recommender for the data after an update.

        What is counted or computed from texts is fitted again, so that it is exactly what a new fit gives. A next-item
        model is trained further.

        Args:
            data: Data of the dataset after the update.
            previous: Data that this recommender was fitted to.
            epochs: Number of passes of a next-item model over the histories that have changed.

        Raises:
            LorarecError: As for `check_update`.
        """
        self.check_update(previous)
        return copy.copy(self).fit(data)

    @abstractmethod
    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the learned tensors, from which `restore` makes the fitted recommender again.

        Raises:
            LorarecError: This kind of recommender cannot be saved.
        """
        raise LorarecError(f"{type(self).__name__} cannot be saved")

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Become the fitted recommender whose `tensors` were saved, without training.

        Args:
            data: Data that the recommender was fitted to.
            tensors: Learned tensors by name.

        Raises:
            LorarecError: This kind of recommender cannot be saved.
            KeyError, RuntimeError: The tensors do not fit the options or the data.
        """
        raise LorarecError(f"{type(self).__name__} cannot be restored")


class ScorerRecommender(Recommender[Config]):
    """A recommender whose `fit` makes the object that scores.

    Attributes:
        scorer: Scorer that `fit` made.
    """

    scorer: Scorer

    @property
    def about(self) -> str:
        """One line for reports."""
        return str(getattr(self.scorer, "about", ""))

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""
        return self.scorer.score(cases)

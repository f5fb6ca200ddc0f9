"""Data and resources for the training of a recommender."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from lorarec.backbone import Backbone
from lorarec.data import HISTORY, USER, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders.interactions import known_items
from lorarec.recommenders.scorer import Scorer

#: Number of validation cases that `TrainingData.validation_ndcg` averages over.
VALIDATION_CASES = 2000


@dataclass(frozen=True)
class TrainingData:
    """Data and resources that a recommender may use in training. It must not read the test cases of the split.

    Attributes:
        dataset: Domain whose items are ranked.
        split: Split of the dataset. Recommenders learn from its training part; its validation part compares epochs.
        general: Datasets and splits of other domains, for pre-training.
        backbone: Language model, or None.
        cache_dir: Folder for adapters and pre-trained weights, which recommenders share and find again, or None.
        seed: Seed of all random numbers.
        progress: Whether to show progress bars.
    """

    dataset: Dataset
    split: Split
    general: Sequence[tuple[Dataset, Split]] = ()
    backbone: Backbone | None = None
    cache_dir: Path | None = None
    seed: int = 42
    progress: bool = False

    @cached_property
    def train_items(self) -> list[str]:
        """Ids of the items with training interactions, in the order of the item table."""
        chosen = set(self.split.train[HISTORY].explode().drop_nulls().to_list())
        return [item for item in self.dataset.titles if item in chosen]

    @cached_property
    def train_index(self) -> dict[str, int]:
        """Position of each item in `train_items`."""
        return {item: position for position, item in enumerate(self.train_items)}

    @cached_property
    def item_index(self) -> dict[str, int]:
        """Position of each item of the dataset: those of `train_items` come first, in the same order."""
        others = (item for item in self.dataset.titles if item not in self.train_index)
        return {item: position for position, item in enumerate([*self.train_items, *others])}

    @cached_property
    def item_rows(self) -> dict[str, int]:
        """Row of each item in the item table."""
        return {item: row for row, item in enumerate(self.dataset.titles)}

    @property
    def users(self) -> list[str]:
        """Ids of the users of the training part, in its order."""
        return self.split.train[USER].to_list()

    @property
    def has_validation_cases(self) -> bool:
        """Whether the split has validation cases, which choose the best epoch; without them it is the last one."""
        return not self.split.valid.is_empty()

    @property
    def histories(self) -> list[np.ndarray]:
        """Training histories as positions in `train_items`, in the order of `users`."""
        return known_items(self.split.train[HISTORY], self.train_index)

    def changed_histories(self, previous: "TrainingData") -> list[np.ndarray]:
        """Return the training histories, as positions in `train_items`, that differ from those of previous data."""
        before = dict(previous.split.train.select(USER, HISTORY).iter_rows())
        after = self.split.train.select(USER, HISTORY).iter_rows()
        is_changed = [before.get(user) != history for user, history in after]
        return [history for history, changed in zip(self.histories, is_changed, strict=True) if changed]

    def validation_ndcg(self, scorer: Scorer) -> float:
        """Return NDCG@10 over at most `VALIDATION_CASES` validation cases, the same for all recommenders and seeds.

        Raises:
            LorarecError: There are no validation cases.
        """
        valid = self.split.valid
        if valid.is_empty():
            raise LorarecError(f"{self.dataset.name}: the split has no validation cases: use another split")
        cases = valid.sample(min(VALIDATION_CASES, len(valid)), seed=0)
        return float(ndcg(target_ranks(scorer.score(cases), np.array(true_places(cases))), 10).mean())

    def require(self, name: Literal["general", "backbone", "cache_dir"]) -> None:
        """Check that an optional attribute is set.

        Raises:
            LorarecError: The attribute is not set.
        """
        if not getattr(self, name):
            raise LorarecError(
                f"{self.dataset.name}: this recommender needs {name}: set it in TrainingData or the recipe"
            )

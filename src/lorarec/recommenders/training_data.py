"""What a system is made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import HISTORY, USER, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import true_places
from lorarec.recommenders.scorer import Scorer

#: Validation cases that a figure of an epoch is the mean over.
WATCHED = 2000


@dataclass(frozen=True)
class TrainingData:
    """All that a system may learn from. Test cases are in the split but not to be looked at.

    Attributes:
        dataset: the domain that is ranked.
        split: its training part is learned from; its validation part tells epochs and trials apart.
        general: other domains, for pre-training.
        backbone: a language model, where one is at hand.
        folder: for what a system writes, such as adapters; it may find there what it wrote when it was interrupted.
        seed: of everything drawn.
        progress: show bars.
    """

    dataset: Dataset
    split: Split
    general: Sequence[tuple[Dataset, Split]] = ()
    backbone: Backbone | None = None
    folder: Path | None = None
    seed: int = 42
    progress: bool = False

    @cached_property
    def catalogue(self) -> list[str]:
        """Ids of the items that someone chose in training, in the order of the item table."""
        chosen = set(self.split.train[HISTORY].explode().drop_nulls().to_list())
        return [item for item in self.dataset.titles if item in chosen]

    @cached_property
    def row(self) -> dict[str, int]:
        """Item id -> its place in `catalogue`."""
        return {item: row for row, item in enumerate(self.catalogue)}

    @cached_property
    def whole(self) -> dict[str, int]:
        """Item id -> its place among all items: those of `catalogue` in its order, then those nobody chose."""
        others = (item for item in self.dataset.titles if item not in self.row)
        return {item: place for place, item in enumerate([*self.catalogue, *others])}

    @property
    def users(self) -> list[str]:
        """Ids of the users of the training part, in its order."""
        return self.split.train[USER].to_list()

    @property
    def histories(self) -> list[np.ndarray]:
        """The training histories as places in `catalogue`, in the order of `users`."""
        return places(self.split.train[HISTORY], self.row)

    def figure(self, scorer: Scorer) -> float:
        """NDCG@10 of at most `WATCHED` validation cases, the same ones for all systems and seeds."""
        valid = self.split.valid
        cases = valid.sample(min(WATCHED, len(valid)), seed=0)
        return float(ndcg(target_ranks(scorer(cases), np.array(true_places(cases))), 10).mean())

    def need(self, what: str) -> None:
        """Refuse to go on without `general` or `backbone`.

        Raises:
            LorarecError: it is missing.
        """
        if not getattr(self, what):
            raise LorarecError(f"{self.dataset.name}: this system needs {what}: name it in the recipe")


def places(lists: pl.Series, row: dict[str, int]) -> list[np.ndarray]:
    """Lists of item ids as the places that `row` names; items that it does not have are left out."""
    return [np.array([row[item] for item in items if item in row], np.int64) for items in lists.to_list()]

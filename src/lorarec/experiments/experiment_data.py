"""What all rows of an experiment stand on: data, split and test cases."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, content_hash, few_shot, load_sample, load_split, load_whole_sample
from lorarec.errors import LorarecError
from lorarec.evaluation import sampled_users, scorer_inputs, tested_settings
from lorarec.experiments.recipe import Recipe
from lorarec.recommenders import TrainingData

WHOLE_SAMPLE, SAMPLE = "sample", "sample:"
#: Of the sample of test users and of the intervals, as in `evaluate`.
SEED = 0


@dataclass(frozen=True)
class ExperimentData:
    """Data of an experiment.

    Attributes:
        dataset: the ranked domain.
        split: of it, with all training users.
        general: other domains.
        cases: setting -> test cases.
    """

    dataset: Dataset
    split: Split
    general: list[tuple[Dataset, Split]]
    cases: dict[str, pl.DataFrame]

    @classmethod
    def load(cls, recipe: Recipe) -> "ExperimentData":
        """Read the data that a recipe names; splits that are not there are drawn.

        Raises:
            LorarecError: a dataset is missing or unusable, or a setting has no cases.
        """
        dataset = load_named_dataset(recipe.dataset)
        try:
            split = load_split(dataset, **(recipe.split or {}))
        except TypeError as error:
            raise LorarecError(f"key split: unusable options of a split: {error}") from error
        general = [(each, load_split(each)) for each in map(load_named_dataset, recipe.general)]
        settings = tested_settings(dataset, split, recipe.settings)
        cases = {setting: sampled_users(split.test[setting], recipe.users, SEED) for setting in settings}
        return cls(dataset, split, general, cases)

    def of_share(self, share: float | None, seed: int) -> Split:
        """The split with a share of its training users, drawn by the seed; None for all."""
        return self.split if share is None else few_shot(self.split, share, seed)

    def material(self, recipe: Recipe, share: float | None, seed: int, folder: Path, progress: bool) -> TrainingData:
        """What a system may learn from: without any test case, so that none can be looked at."""
        split = replace(self.of_share(share, seed), test={})
        backbone = None if recipe.backbone is None else Backbone.from_pretrained(recipe.backbone)
        return TrainingData(self.dataset, split, self.general, backbone, folder, seed, progress)

    def candidates(self) -> dict[str, str]:
        """Setting -> hash of users, histories and candidate sets."""
        return {setting: content_hash(scorer_inputs(cases)) for setting, cases in self.cases.items()}

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        """What all finished rows rest on; rows of another identity may not stand in one table."""
        return {
            "dataset": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint},
            "split": {"fingerprint": self.split.fingerprint, "options": self.split.info["options"]},
            "general": [{"name": each.name, "fingerprint": split.fingerprint} for each, split in self.general],
            "users": recipe.users,
            "settings": list(self.cases),
            "candidates": self.candidates(),
            "backbone": recipe.backbone,
        }


def load_named_dataset(name: str) -> Dataset:
    """A dataset folder, `sample:DOMAIN` of the bundled sample, or `sample` for all of it.

    Raises:
        LorarecError: it is missing or unusable.
    """
    if name == WHOLE_SAMPLE:
        return load_whole_sample()
    return load_sample(name.removeprefix(SAMPLE)) if name.startswith(SAMPLE) else Dataset.load(name)

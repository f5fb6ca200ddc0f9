"""Data that all rows of an experiment share: dataset, split and test cases."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from lorarec.backbone import Backbone, Dtype
from lorarec.data import Dataset, Split, few_shot, load_sample, load_split, load_whole_sample
from lorarec.errors import LorarecError
from lorarec.evaluation import Catalogue, hash_candidates, sample_users, select_settings, without_repeats
from lorarec.experiments.recipe import Recipe
from lorarec.io import JsonObject
from lorarec.recommenders import TrainingData

_WHOLE_SAMPLE, _SAMPLE = "sample", "sample:"
#: Seed of the sample of test users and of the intervals; the default of `evaluate`.
SEED = 0


@dataclass(frozen=True)
class ExperimentData:
    """Data of an experiment.

    Attributes:
        dataset: Dataset of the ranked domain.
        split: Split of the dataset, with all training users.
        general: Datasets of other domains with their splits.
        cases: Test cases by name of the setting.
        catalogue: Candidates of every case, or None for the stored candidate sets.
        repeats: Number of cases that are left out because the target item is in the history, by name of the setting.
    """

    dataset: Dataset
    split: Split
    general: list[tuple[Dataset, Split]]
    cases: dict[str, pl.DataFrame]
    catalogue: Catalogue | None = None
    repeats: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, recipe: Recipe) -> "ExperimentData":
        """Load the data that a recipe names; splits that do not exist are drawn.

        Raises:
            LorarecError: A dataset is missing or unusable, or a setting has no cases.
        """
        dataset = load_named_dataset(recipe.dataset)
        try:
            split = load_split(dataset, **(recipe.split or {}))
        except TypeError as error:
            raise LorarecError(f"key split: unusable options of a split: {error}") from error
        general = [(each, load_split(each)) for each in map(load_named_dataset, recipe.general)]
        settings = select_settings(dataset, split, recipe.settings)
        cases = {setting: sample_users(split.test[setting], recipe.users, SEED) for setting in settings}
        if recipe.candidates == "stored":
            return cls(dataset, split, general, cases)
        new = {setting: without_repeats(setting, given) for setting, given in cases.items()}
        repeats = {setting: given.height - new[setting].height for setting, given in cases.items()}
        return cls(dataset, split, general, new, Catalogue(dataset, split, SEED), repeats)

    def split_with_share(self, share: float | None, seed: int) -> Split:
        """Return the split with a share of its training users, drawn by the seed; None for all."""
        return self.split if share is None else few_shot(self.split, share, seed)

    def training_data(
        self, recipe: Recipe, share: float | None, seed: int, folder: Path, progress: bool
    ) -> TrainingData:
        """Return the data that a system may learn from; test cases are not part of it."""
        split = replace(self.split_with_share(share, seed), test={})
        backbone = None if recipe.backbone is None else Backbone.from_pretrained(recipe.backbone, dtype=recipe.dtype)
        return TrainingData(self.dataset, split, self.general, backbone, folder, seed, progress)

    def candidates(self) -> dict[str, str]:
        """Return the hash of users, histories and candidate sets by setting."""
        return {setting: hash_candidates(cases, self.catalogue) for setting, cases in self.cases.items()}

    def identity(self, recipe: Recipe) -> JsonObject:
        """Return the values that decide all results; rows with another identity must not be in the same table."""
        return {
            "dataset": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint},
            "split": {"fingerprint": self.split.fingerprint, "options": self.split.info["options"]},
            "general": [{"name": each.name, "fingerprint": split.fingerprint} for each, split in self.general],
            "users": recipe.users,
            "settings": list(self.cases),
            "candidates": self.candidates(),
            "backbone": backbone_name(recipe.backbone, recipe.dtype),
        }


def backbone_name(backbone: str | None, dtype: Dtype) -> str | None:
    """Return the name of a backbone in reports, with the data type of its weights if one is given."""
    return backbone if backbone is None or dtype == "auto" else f"{backbone} in {dtype}"


def load_named_dataset(name: str) -> Dataset:
    """Load a dataset folder, `sample:DOMAIN` of the bundled sample, or `sample` for all of it.

    Raises:
        LorarecError: The dataset is missing or unusable.
    """
    if name == _WHOLE_SAMPLE:
        return load_whole_sample()
    return load_sample(name.removeprefix(_SAMPLE)) if name.startswith(_SAMPLE) else Dataset.load(name)

"""Recipes of MoLoRec's Figures 4 and 5: data, adapters and numbers of prompts."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from lorarec.backbone import EMBEDDED, Dtype
from lorarec.errors import LorarecError
from lorarec.experiments.former_names import current_names
from lorarec.experiments.language_models import AdapterConfig, GeneralAdapter
from lorarec.experiments.recipe import SETTINGS, Recipe, check_domains
from lorarec.experiments.recipe_keys import (
    TABLE,
    make_lists,
    read_keys,
    read_options,
    require,
    require_counts,
    require_dtype,
    require_each,
    require_keys,
    require_seeds,
    require_texts,
)
from lorarec.io import JsonObject
from lorarec.lora import PROMPT_COUNTS

WEIGHTS = "weights"


@dataclass(frozen=True)
class WeightsRecipe:
    """The recipe of an analysis of the weights that entropy chooses between a general and a specific adapter.

    Attributes:
        dataset: Ranked domain: a dataset folder, or `sample:DOMAIN` of the bundled sample.
        adapters: Folders of the general and the specific adapter.
        general: Other domains, to train the adapters on if none are given.
        options: Options of that training.
        split: Options of `lorarec.data.draw_split`; None for the dataset's stored split.
        settings: Names of the split's test settings.
        users: Number of test users of each setting that metrics are computed on; none of them is among the prompts.
        backbone: Id or folder of the language model.
        dtype: Data type of the backbone's weights, as in `BackboneConfig`.
        prompts: Numbers of unlabelled prompts that Figure 5 compares.
        seeds: Seeds of the draws of prompts, one draw for each; the first one is used everywhere else too.
    """

    dataset: str
    adapters: list[str] = field(default_factory=list)
    general: list[str] = field(default_factory=list)
    options: JsonObject = field(default_factory=dict)
    split: JsonObject | None = None
    settings: list[str] = field(default_factory=lambda: list(SETTINGS))
    users: int = 300
    backbone: str = EMBEDDED
    dtype: Dtype = "auto"
    prompts: list[int] = field(default_factory=lambda: list(PROMPT_COUNTS))
    seeds: list[int] = field(default_factory=lambda: [42])

    @property
    def data(self) -> Recipe:
        """Recipe of a ranking experiment with the same data and without rows."""
        return Recipe(
            self.dataset, {}, self.general, self.split, self.settings, backbone=self.backbone, dtype=self.dtype
        )

    def as_dict(self) -> JsonObject:
        """Return plain values, as a recipe file holds them."""
        return {TABLE: WEIGHTS, **asdict(self)}


def read_weights(path: str | Path) -> WeightsRecipe:
    """Read a recipe whose `table` is `weights`.

    Raises:
        LorarecError: One line that names the file and the key.
    """
    return read_keys(path, WeightsRecipe, _build)


def _build(given: JsonObject) -> WeightsRecipe:
    require_keys(given, "dataset")
    require_texts(given, "dataset", "backbone")
    check_domains(given)
    make_lists(given, "adapters", "prompts", "seeds", empty=("adapters",))
    require_dtype(given)
    require_seeds(given)
    require_counts(given, "users")
    require_each(given, "prompts", lambda each: type(each) is int and each >= 1, "whole numbers from 1 on")
    require_each(given, "adapters", lambda each: isinstance(each, str), "adapter folders")
    adapters, domains = given.get("adapters"), given.get("general")
    require("adapters", not adapters or len(adapters) == 2, "the folders of a general and a specific adapter", adapters)
    if bool(adapters) == bool(domains):
        raise LorarecError("key adapters: give either adapters or, to have them trained, general domains")
    given["options"] = read_options(given, "options", "options of `lorarec train`")
    if adapters and given["options"]:
        raise LorarecError("key options: the adapters given are trained already: leave it out")
    given["options"] = current_names(AdapterConfig, given["options"])
    try:
        GeneralAdapter.from_options(given["options"])
    except LorarecError as error:
        raise LorarecError(f"key options: {error}") from error
    return WeightsRecipe(**{key: value for key, value in given.items() if value is not None})

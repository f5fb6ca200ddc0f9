"""The recipe of MoLoRec's Figures 4 and 5: which data, which adapters, how many prompts."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lorarec.backbone import EMBEDDED
from lorarec.errors import LorarecError
from lorarec.experiments.recipe import SETTINGS, Recipe, check_domains
from lorarec.experiments.recipe_keys import (
    TABLE,
    make_lists,
    need,
    need_counts,
    need_each,
    need_given,
    need_seeds,
    need_texts,
    options_of,
    read_keys,
)
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.lora import PROMPT_COUNTS

WEIGHTS = "weights"


@dataclass(frozen=True)
class WeightsRecipe:
    """An analysis of the weights that entropy chooses between a general and a specific adapter.

    Attributes:
        dataset: the ranked domain: a dataset folder, or `sample:DOMAIN` of the bundled sample.
        adapters: folders of the general and the specific adapter.
        general: other domains, to train the adapters on where none are given.
        options: of that training.
        split: options of `lorarec.data.draw_split`; None for the dataset's stored split.
        settings: of the split's test parts.
        users: test users of each setting that figures are measured on; none of them is among the prompts.
        backbone: id or folder of the language model.
        prompts: numbers of unlabelled prompts that Figure 5 compares.
        seeds: of the draws of prompts, one draw for each; the first one is also that of everything else.
    """

    dataset: str
    adapters: list[str] = field(default_factory=list)
    general: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] | None = None
    settings: list[str] = field(default_factory=lambda: list(SETTINGS))
    users: int = 300
    backbone: str = EMBEDDED
    prompts: list[int] = field(default_factory=lambda: list(PROMPT_COUNTS))
    seeds: list[int] = field(default_factory=lambda: [42])

    @property
    def ground(self) -> Recipe:
        """The data, as those of a ranking table without rows."""
        return Recipe(self.dataset, {}, self.general, self.split, self.settings, backbone=self.backbone)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a recipe file holds them."""
        return {TABLE: WEIGHTS, **asdict(self)}


def read_weights(path: str | Path) -> WeightsRecipe:
    """Read a recipe whose `table` is `weights`.

    Raises:
        LorarecError: one line that names the file and the key.
    """
    return read_keys(path, WeightsRecipe, _checked)


def _checked(given: dict[str, Any]) -> WeightsRecipe:
    need_given(given, "dataset")
    need_texts(given, "dataset", "backbone")
    check_domains(given)
    make_lists(given, "adapters", "prompts", "seeds", empty=("adapters",))
    need_seeds(given)
    need_counts(given, "users")
    need_each("prompts", given, lambda each: type(each) is int and each >= 1, "whole numbers from 1 on")
    need_each("adapters", given, lambda each: isinstance(each, str), "adapter folders")
    adapters, domains = given.get("adapters"), given.get("general")
    need("adapters", not adapters or len(adapters) == 2, "the folders of a general and a specific adapter", adapters)
    if bool(adapters) == bool(domains):
        raise LorarecError("key adapters: give either adapters or, to have them trained, general domains")
    given["options"] = options_of(given, "options", "options of `lorarec train`")
    if adapters and given["options"]:
        raise LorarecError("key options: the adapters given are trained already: leave it out")
    try:
        RECOMMENDERS["general"].from_options(given["options"])
    except LorarecError as error:
        raise LorarecError(f"key options: {error}") from error
    return WeightsRecipe(**{key: value for key, value in given.items() if value is not None})

"""Prompts on which the weights of a mixture are chosen, drawn from a dataset and its split."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import TARGET, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.lora.peft_folder import AdapterLike, read_adapter
from lorarec.lora.prompt_record import require_shared_prompt
from lorarec.prompts import Example, PromptBuilder, PromptConfig, case_examples, true_places
from lorarec.recommenders import make_evidence


@dataclass(frozen=True)
class MixingExamples:
    """Prompts on which the weights of a mixture are chosen.

    Attributes:
        builder: The builder of the prompts.
        prompts: The prompts with their candidates as branches.
        targets: The index of the target item of each prompt; None for prompts without labels.
    """

    builder: PromptBuilder
    prompts: Sequence[Example]
    targets: Sequence[int] | None = None


def require_targets(labelled: MixingExamples) -> Sequence[int]:
    """Return the targets of labelled prompts.

    Raises:
        LorarecError: There are no prompts, or the numbers of prompts and targets differ.
    """
    targets = labelled.targets or ()
    if not labelled.prompts:
        raise LorarecError("no validation cases: the dataset's split has none")
    if len(labelled.prompts) != len(targets):
        raise LorarecError(f"{len(labelled.prompts)} validation prompts but {len(targets)} targets")
    return targets


class MixingPrompts:
    """Build prompts in the form that the adapters were trained on.

    Args:
        backbone: The backbone on which the adapters were trained.
        adapters: Adapters or paths of PEFT folders; `lorarec.json` records readout, template and length limits.

    Attributes:
        builder: The prompt builder.
        max_history: The number of items of a history that are read, the latest ones.
        config: Options of the prompts.

    Raises:
        LorarecError: The adapters were trained on different prompts.
    """

    def __init__(self, backbone: Backbone, adapters: Sequence[AdapterLike]) -> None:
        read = [read_adapter(adapter, backbone) for adapter in adapters]
        self.config: PromptConfig = require_shared_prompt(read)
        self.max_history = self.config.max_history
        self.builder = backbone.prompt_builder(self.config)

    def unlabelled(self, dataset: Dataset, split: Split, setting: str, count: int, seed: int) -> list[Example]:
        """Return the prompts of random test users of a setting, without their targets.

        Args:
            dataset: The dataset.
            split: The split of the dataset.
            setting: The setting of the split, such as `warm` or `new-item`.
            count: The number of prompts; if there are fewer test users, all of them are drawn.
            seed: The seed of the draw.

        Raises:
            LorarecError: The split does not have the setting, or no cases in it.
        """
        if setting not in split.test:
            known = ", ".join(split.test)
            raise LorarecError(f"dataset {dataset.name} has no setting {setting!r}: choose from {known}")
        cases = split.test[setting].drop(TARGET)
        if cases.is_empty():
            raise LorarecError(f"setting {setting} of dataset {dataset.name} has no cases")
        return self.examples(dataset, split, sample_cases(cases, count, seed))

    def validation(self, dataset: Dataset, split: Split, count: int, seed: int) -> tuple[list[Example], list[int]]:
        """Return the prompts of random validation users, and the index of the target item of each.

        Args:
            dataset: The dataset.
            split: The split of the dataset.
            count: The number of prompts; if there are fewer validation users, all of them are drawn.
            seed: The seed of the draw.

        Raises:
            LorarecError: The split has no validation cases.
        """
        if split.valid.is_empty():
            raise LorarecError(f"dataset {dataset.name} has no validation cases")
        cases = sample_cases(split.valid, count, seed)
        return self.examples(dataset, split, cases), true_places(cases)

    def examples(self, dataset: Dataset, split: Split, cases: pl.DataFrame) -> list[Example]:
        """Return the prompts of rows of a split (user_id, history, candidates), without reading their targets."""
        evidence = make_evidence(self.config, dataset, split)
        return case_examples(cases, dataset.titles, self.builder, self.max_history, evidence)


def sample_cases(cases: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    """Return `count` random cases, or all cases in random order if there are fewer."""
    return cases.sample(min(count, len(cases)), shuffle=True, seed=seed)

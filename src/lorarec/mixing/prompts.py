"""Prompts for choosing weights, from a dataset and its split."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lorarec.adapters import read_adapter
from lorarec.backbone.load import Backbone
from lorarec.data import Dataset, Split
from lorarec.data.columns import CANDIDATES, HISTORY, TARGET
from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder

#: Items of a history shown when the adapters do not say.
MAX_HISTORY = 10


class CasePrompts:
    """Builds prompts the way the adapters were trained to read them.

    Args:
        adapters: PEFT folders; their `lorarec.json` says readout, template and lengths.

    Raises:
        LorarecError: the adapters were trained on different prompts.
    """

    def __init__(self, backbone: Backbone, adapters: Sequence[str | Path]) -> None:
        metas = [(folder, read_adapter(folder, backbone).meta or {}) for folder in adapters]
        first_folder, first = metas[0]
        for folder, meta in metas[1:]:
            for key, default in (("readout", "verdict"), ("template", "default")):
                if meta.get(key, default) != first.get(key, default):
                    raise LorarecError(
                        f"adapters {first_folder} and {folder} were trained with another {key} each "
                        f"({first.get(key, default)}, {meta.get(key, default)}) and cannot share prompts"
                    )
        options = first.get("options") or {}
        template = first.get("template", "default")
        self.max_history = int(options.get("max_history") or MAX_HISTORY)
        self.builder = PromptBuilder(
            backbone.tokenizer,
            readout=first.get("readout", "verdict"),
            template=None if template == "default" else template,
            max_tokens=int(options.get("max_tokens") or 1024),
            max_title_tokens=int(options.get("max_title_tokens") or 32),
        )

    def unlabelled(self, dataset: Dataset, split: Split, setting: str, count: int, seed: int) -> list[Example]:
        """Prompts of `count` random test users of a setting, without their targets.

        Raises:
            LorarecError: the split has no such setting, or no cases in it.
        """
        if setting not in split.test:
            raise LorarecError(f"dataset {dataset.name} has no setting {setting}: choose from {', '.join(split.test)}")
        cases = split.test[setting].drop(TARGET)
        if cases.is_empty():
            raise LorarecError(f"setting {setting} of dataset {dataset.name} has no cases")
        return self._examples(dataset, _sampled(cases, count, seed))

    def validation(self, dataset: Dataset, split: Split, count: int, seed: int) -> tuple[list[Example], list[int]]:
        """Prompts of `count` random validation users and the index of each one's true candidate.

        Raises:
            LorarecError: the split has no validation cases.
        """
        if split.valid.is_empty():
            raise LorarecError(f"dataset {dataset.name} has no validation cases")
        cases = _sampled(split.valid, count, seed)
        targets = [candidates.index(target) for target, candidates in cases.select(TARGET, CANDIDATES).iter_rows()]
        return self._examples(dataset, cases), targets

    def _examples(self, dataset: Dataset, cases: pl.DataFrame) -> list[Example]:
        titles = dataset.titles
        return [
            self.builder.example(
                [titles[item] for item in history[-self.max_history :]], [titles[item] for item in candidates]
            )
            for history, candidates in cases.select(HISTORY, CANDIDATES).iter_rows()
        ]


def _sampled(cases: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    return cases.sample(min(count, len(cases)), shuffle=True, seed=seed)

"""Figures 4 and 5 of MoLoRec from their recipe; parts that are done already are kept."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorarec.backbone import Backbone
from lorarec.data import Split
from lorarec.evaluation import adapter_scorers
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.job import SHARED
from lorarec.experiments.language_models import adapter_pair
from lorarec.experiments.run_dir import init_run_dir
from lorarec.experiments.weight_figures.recipe import WeightsRecipe
from lorarec.io import read_json, write_json
from lorarec.lora import (
    COMBINE_RULES,
    MIXING_SCOPES,
    AdapterLike,
    MixingExamples,
    MixingPrompts,
    effect_of_prompts,
    mix,
    read_adapter,
    weights_by_setting,
)
from lorarec.metrics import ndcg, target_ranks
from lorarec.prompts import Example, true_places
from lorarec.recommenders import TrainingData

#: Unlabelled prompts of Figure 4 and of the variants.
PROMPTS = 100
CUTOFFS = (1, 3)
RECORD, VARIANTS = "analysis.json", "variants.json"


def run_weights(
    recipe: WeightsRecipe, out: str | Path, *, console: Console | None = None, progress: bool = False
) -> dict[str, Any]:
    """Find out where entropy puts the weight between a general and a specific adapter.

    `out` gets `settings/`, the weights found on 100 unlabelled prompts of each setting (Figure 4); a folder for each
    setting, NDCG of test users after mixing on ever more prompts of other test users (Figure 5); `variants.json`, NDCG
    of both adapters and of every scope and combination; and in `artefacts/` adapters that were trained here. Run again,
    it does only what is missing.

    Args:
        console: is told of each part that is done.
        progress: bars of the training.

    Returns:
        `settings`, `prompts` by setting, and `variants`, as the JSON files hold them.

    Raises:
        LorarecError: unusable data or adapters, or `out` belongs to another experiment.
    """
    out, console = Path(out), console or Console(quiet=True)
    ground, backbone, seed = ExperimentData.load(recipe.ground), Backbone.load(recipe.backbone), recipe.seeds[0]
    known = [read_adapter(folder, backbone).fingerprint for folder in recipe.adapters]
    rest = {key: getattr(recipe, key) for key in ("options", "prompts", "seeds")}
    identity = ground.identity(recipe.ground) | {"users": recipe.users, "adapters": known, **rest}
    init_run_dir(out, identity, recipe.as_dict(), RECORD)
    learnt = replace(ground.split, test={})
    material = TrainingData(ground.dataset, learnt, ground.general, backbone, out / SHARED, seed, progress)
    pair = [Path(folder) for folder in recipe.adapters] or adapter_pair(material, recipe.options)
    analysis = _Analysis(recipe, ground, backbone, pair, MixingPrompts(backbone, pair))
    if not (out / "settings").exists():
        prompts = {name: analysis.unlabelled(ground.split, name, PROMPTS) for name in ground.cases}
        weights_by_setting(backbone, pair, prompts, analysis.cases.builder, out / "settings")
        console.print("weights by setting: done", markup=False)
    variants = read_json(out / VARIANTS) if (out / VARIANTS).exists() else {}
    for name in ground.cases:
        halves = _halves(ground.split, name, recipe.users, seed)
        if name not in variants:
            variants[name] = analysis.variants(halves, name)
            write_json(out / VARIANTS, variants)
            console.print(f"{name}, adapters and mixtures: done", markup=False)
        if not (out / name).exists():
            analysis.effect(halves, name, out / name)
            console.print(f"{name}, number of prompts: done", markup=False)
    return {
        "settings": read_json(out / "settings" / "weights_by_setting.json"),
        "prompts": {name: read_json(out / name / "effect_of_prompts.json") for name in ground.cases},
        "variants": variants,
    }


@dataclass(frozen=True)
class _Analysis:
    """What all parts share."""

    recipe: WeightsRecipe
    ground: ExperimentData
    backbone: Backbone
    pair: list[Path]
    cases: MixingPrompts

    def unlabelled(self, split: Split, setting: str, count: int) -> list[Example]:
        return self.cases.unlabelled(self.ground.dataset, split, setting, count, self.recipe.seeds[0])

    def effect(self, halves: Split, setting: str, out: Path) -> None:
        """Mix on ever more prompts of one half, and measure on the other."""
        recipe, prompts = self.recipe, self.unlabelled(halves, setting, max(self.recipe.prompts))
        labelled = self.cases.validation(self.ground.dataset, halves, recipe.users, recipe.seeds[0])
        builder, counts = self.cases.builder, sorted(recipe.prompts)
        effect_of_prompts(self.backbone, self.pair, prompts, labelled, builder, out, counts=counts, seeds=recipe.seeds)

    def variants(self, halves: Split, setting: str) -> list[dict[str, Any]]:
        """NDCG of both adapters and of every scope and combination, mixed on the same prompts."""
        examples = MixingExamples(self.cases.builder, self.unlabelled(halves, setting, PROMPTS))
        names = ("general", "specific")
        rows = [{"row": name, **self._measured(halves, each)} for name, each in zip(names, self.pair, strict=True)]
        for scope in MIXING_SCOPES:
            for combine in COMBINE_RULES:
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder) / "mixed"
                    mixed = mix(self.backbone, self.pair, out, scope=scope, combine=combine, examples=examples)
                    found = mixed.weights.values() if isinstance(mixed.weights, dict) else [mixed.weights]
                    mean = np.mean(list(found), axis=0).round(4).tolist()
                    figures = self._measured(halves, mixed)
                rows.append({"row": f"{scope}, {combine}", "mean weights": mean, **figures})
        return rows

    def _measured(self, halves: Split, adapter: AdapterLike) -> dict[str, float]:
        """NDCG of an adapter on the labelled cases."""
        row = adapter_scorers(self.backbone, self.ground.dataset, halves, {"row": adapter})["row"]
        ranks = target_ranks(row(halves.valid), np.array(true_places(halves.valid)))
        return {f"ndcg@{k}": float(ndcg(ranks, k).mean()) for k in CUTOFFS}


def variants_table(setting: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Figures of both adapters and of their mixtures in a setting, for a terminal."""
    table = Table(title=Text(f"{setting}: mixed on {PROMPTS} unlabelled prompts or fewer"))
    table.add_column("row")
    figures = [f"ndcg@{k}" for k in CUTOFFS]
    for name in ("mean weights", *map(str.upper, figures)):
        table.add_column(name, justify="right")
    for row in rows:
        weights = " / ".join(f"{weight:.2f}" for weight in row.get("mean weights", []))
        table.add_row(Text(row["row"]), weights, *(f"{row[figure]:.3f}" for figure in figures))
    return table


def _halves(split: Split, setting: str, users: int, seed: int) -> Split:
    """Half of the test cases of a setting to draw prompts from, `users` others as the labelled ones to measure on."""
    cases = split.test[setting].sample(fraction=1, shuffle=True, seed=seed)
    half = len(cases) // 2
    return replace(split, test={setting: cases[:half]}, valid=cases[half : half + users])

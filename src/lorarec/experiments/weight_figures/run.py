"""MoLoRec's Figures 4 and 5, from recipe to pictures; parts that are done are not done again."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from lorarec.backbone import Backbone
from lorarec.data import Split
from lorarec.evaluation import NumberCell, ReportTable
from lorarec.experiments.experiment_data import ExperimentData, backbone_name
from lorarec.experiments.experiment_dir import open_experiment_dir
from lorarec.experiments.job import SHARED
from lorarec.experiments.language_models import AdapterConfig
from lorarec.experiments.mixtures import adapter_pair
from lorarec.experiments.tracking import report_run
from lorarec.experiments.weight_figures.recipe import WeightsRecipe
from lorarec.io import JsonObject, read_json, write_json
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
from lorarec.ranking import adapter_scorers
from lorarec.recommenders import TrainingData
from lorarec.training import TrackingConfig

#: Unlabelled prompts of Figure 4 and of the variants.
PROMPTS = 100
CUTOFFS = (1, 3)
RECORD, VARIANTS = "analysis.json", "variants.json"


def run_weights(
    recipe: WeightsRecipe,
    out: str | Path,
    *,
    tracking: TrackingConfig | None = None,
    console: Console | None = None,
    progress: bool = False,
) -> JsonObject:
    """Choose weights between a general and a specific adapter by entropy, and measure the mixtures.

    `out` gets `settings/`, the weights chosen on 100 unlabelled prompts of each setting (Figure 4); a folder for each
    setting, NDCG of test users after mixing on ever more prompts of other test users (Figure 5); `variants.json`, NDCG
    of both adapters and of every scope and combination; and in `artefacts/` adapters that were trained here. A second
    run does only what is missing.

    Args:
        out: Folder of the experiment.
        tracking: Trackers that get a run `weights` with the metrics and mean weights of the variants and the pictures;
            the defaults of `TrackingConfig` if None. A run that a tracker has already is not written again.
        console: Console that gets a line about each part that is done.
        progress: Show the progress of the training.

    Returns:
        `settings`, `prompts` by setting, and `variants`, as in the JSON files.

    Raises:
        LorarecError: The data or adapters are unusable, or `out` belongs to another experiment.
    """
    out, console = Path(out), console or Console(quiet=True)
    data, seed = ExperimentData.load(recipe.data), recipe.seeds[0]
    backbone = Backbone.from_pretrained(recipe.backbone, dtype=recipe.dtype)
    fingerprints = [read_adapter(folder, backbone).fingerprint for folder in recipe.adapters]
    rest = {key: getattr(recipe, key) for key in ("options", "prompts", "seeds")}
    identity = data.identity(recipe.data) | {"users": recipe.users, "adapters": fingerprints, **rest}
    open_experiment_dir(out, identity, recipe.as_dict(), RECORD)
    without_test = replace(data.split, test={})
    training_data = TrainingData(data.dataset, without_test, data.general, backbone, out / SHARED, seed, progress)
    pair = [Path(folder) for folder in recipe.adapters] or adapter_pair(training_data, AdapterConfig(**recipe.options))
    analysis = _Analysis(recipe, data, backbone, pair, MixingPrompts(backbone, pair))
    if not (out / "settings").exists():
        prompts = {name: analysis.unlabelled(data.split, name, PROMPTS) for name in data.cases}
        weights_by_setting(backbone, pair, prompts, analysis.prompts.builder, out / "settings")
        console.print("weights by setting: done", markup=False)
    variants = read_json(out / VARIANTS) if (out / VARIANTS).exists() else {}
    for name in data.cases:
        halves = _split_test_cases(data.split, name, recipe.users, seed)
        if name not in variants:
            variants[name] = analysis.variants(halves, name)
            write_json(out / VARIANTS, variants)
            console.print(f"{name}, adapters and mixtures: done", markup=False)
        if not (out / name).exists():
            analysis.effect(halves, name, out / name)
            console.print(f"{name}, number of prompts: done", markup=False)
    report_run(
        tracking or TrackingConfig(),
        out,
        "weights",
        {
            "dataset": data.dataset.name,
            "backbone": backbone_name(recipe.backbone, recipe.dtype),
            "users": recipe.users,
            "seed": seed,
        },
        {
            f"test_{name}/{row['row']}/{figure}": value
            for name, rows in variants.items()
            for row in rows
            for figure, value in _figures(row).items()
        },
        [path for name in ("settings", *data.cases) for path in sorted((out / name).glob("*.png"))],
    )
    return {
        "settings": read_json(out / "settings" / "weights_by_setting.json"),
        "prompts": {name: read_json(out / name / "effect_of_prompts.json") for name in data.cases},
        "variants": variants,
    }


def _figures(row: JsonObject) -> dict[str, float]:
    """Return the metrics of a variant, and of a mixture its mean weights."""
    weights = dict(zip(("weight general", "weight specific"), row.get("mean weights", ()), strict=False))
    return weights | {name: value for name, value in row.items() if name.startswith("ndcg@")}


@dataclass(frozen=True)
class _Analysis:
    """Parts of the analysis, which share their data and adapters."""

    recipe: WeightsRecipe
    data: ExperimentData
    backbone: Backbone
    pair: list[Path]
    prompts: MixingPrompts

    def unlabelled(self, split: Split, setting: str, count: int) -> list[Example]:
        """Return unlabelled prompts of a setting."""
        return self.prompts.unlabelled(self.data.dataset, split, setting, count, self.recipe.seeds[0])

    def effect(self, halves: Split, setting: str, out: Path) -> None:
        """Mix on ever more prompts of one half of the test cases, and compute metrics on the other half."""
        recipe, prompts = self.recipe, self.unlabelled(halves, setting, max(self.recipe.prompts))
        labelled = self.prompts.validation(self.data.dataset, halves, recipe.users, recipe.seeds[0])
        builder, counts = self.prompts.builder, sorted(recipe.prompts)
        effect_of_prompts(self.backbone, self.pair, prompts, labelled, builder, out, counts=counts, seeds=recipe.seeds)

    def variants(self, halves: Split, setting: str) -> list[JsonObject]:
        """Return NDCG of both adapters and of every scope and combination, mixed on the same prompts."""
        examples = MixingExamples(self.prompts.builder, self.unlabelled(halves, setting, PROMPTS))
        names = ("general", "specific")
        rows = [{"row": name, **self._ndcg(halves, each)} for name, each in zip(names, self.pair, strict=True)]
        for scope in MIXING_SCOPES:
            for combine in COMBINE_RULES:
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder) / "mixed"
                    mixed = mix(self.backbone, self.pair, out, scope=scope, combine=combine, examples=examples)
                    weights = mixed.weights.values() if isinstance(mixed.weights, dict) else [mixed.weights]
                    mean = np.mean(list(weights), axis=0).round(4).tolist()
                    metrics = self._ndcg(halves, mixed)
                rows.append({"row": f"{scope}, {combine}", "mean weights": mean, **metrics})
        return rows

    def _ndcg(self, halves: Split, adapter: AdapterLike) -> dict[str, float]:
        """Return NDCG of an adapter on the labelled cases."""
        scorer = adapter_scorers(self.backbone, self.data.dataset, halves, {"row": adapter})["row"]
        ranks = target_ranks(scorer.score(halves.valid), np.array(true_places(halves.valid)))
        return {f"ndcg@{k}": float(ndcg(ranks, k).mean()) for k in CUTOFFS}


def variants_table(setting: str, rows: Sequence[JsonObject]) -> Table:
    """Return the metrics of both adapters and of their mixtures in a setting, for a terminal."""
    metrics = [f"ndcg@{k}" for k in CUTOFFS]
    cells = []
    for row in rows:
        weights = " / ".join(f"{weight:.2f}" for weight in row.get("mean weights", []))
        cells.append([row["row"], weights, *(NumberCell(row[metric]) for metric in metrics)])
    table = ReportTable(["row", "mean weights", *map(str.upper, metrics)], cells)
    return table.to_rich(f"{setting}: mixed on {PROMPTS} unlabelled prompts or fewer")


def _split_test_cases(split: Split, setting: str, users: int, seed: int) -> Split:
    """Return a split with half of a setting's test cases to draw prompts from, and `users` others as labelled cases."""
    cases = split.test[setting].sample(fraction=1, shuffle=True, seed=seed)
    half = len(cases) // 2
    return replace(split, test={setting: cases[:half]}, valid=cases[half : half + users])

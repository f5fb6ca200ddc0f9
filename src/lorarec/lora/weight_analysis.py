"""Analyses of the weights that entropy chooses and of the prompts that it needs (MoLoRec, Figures 4 and 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import new_folder, write_json
from lorarec.lora.bank import AdapterBank
from lorarec.lora.combine import FACTORS
from lorarec.lora.grid_search import ndcg_at_weights
from lorarec.lora.injection import inject
from lorarec.lora.mixing_prompts import MixingExamples
from lorarec.lora.objectives import CANDIDATES, Entropy
from lorarec.lora.peft_folder import Adapter, AdapterLike
from lorarec.lora.plots import plot_prompt_counts, plot_settings
from lorarec.lora.unlabelled_search import unlabelled_weights
from lorarec.lora.weight_search import EvaluatedMixture
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import evaluation_mode

PROMPT_COUNTS = (10, 25, 50, 100, 200)


def weights_by_setting(
    backbone: Backbone,
    adapters: Sequence[AdapterLike],
    prompts: Mapping[str, Sequence[Example]],
    builder: PromptBuilder,
    out: str | Path,
) -> dict[str, EvaluatedMixture]:
    """Choose weights by entropy in each setting and write `weights_by_setting.json` and `.png` (Figure 4).

    Args:
        backbone: The backbone on which the adapters were trained.
        adapters: Two or more adapters or paths of PEFT folders.
        prompts: Setting, such as `warm` or `new-item`, -> unlabelled prompts.
        builder: The builder of the prompts.
        out: Path of the folder to write.

    Returns:
        Setting -> the chosen weights and their entropy.

    Raises:
        LorarecError: An adapter cannot be used, a setting has no prompts, or `out` exists.
    """
    bank = AdapterBank.load(adapters, backbone)
    entropy = Entropy(CANDIDATES, builder)
    mixtures: dict[str, EvaluatedMixture] = {}
    listed = {}
    with new_folder(out) as folder:
        with evaluation_mode(backbone.model), inject(backbone.model, bank, FACTORS) as mixed:
            for setting, examples in prompts.items():
                weights, trace = unlabelled_weights(mixed, bank.size, examples, entropy, "model")
                lowest = min(step.metrics["entropy"] for step in trace.steps)
                mixtures[setting] = EvaluatedMixture(weights.tolist(), {"entropy": lowest})
                listed[setting] = {**mixtures[setting].as_dict(), "steps": trace.listed()}
        paths = [_path(adapter) for adapter in adapters]
        write_json(folder / "weights_by_setting.json", {"adapters": paths, "settings": listed})
        plot_settings(
            folder / "weights_by_setting.png", bank.names, {name: each.weights for name, each in mixtures.items()}
        )
    return mixtures


def effect_of_prompts(
    backbone: Backbone,
    adapters: Sequence[AdapterLike],
    prompts: Sequence[Example],
    evaluation: tuple[Sequence[Example], Sequence[int]],
    builder: PromptBuilder,
    out: str | Path,
    *,
    counts: Sequence[int] = PROMPT_COUNTS,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[tuple[int, EvaluatedMixture]]:
    """Choose weights on more and more unlabelled prompts and write `effect_of_prompts.json` and `.png` (Figure 5).

    The labels of `evaluation` are read after all weights are chosen.

    Args:
        backbone: The backbone on which the adapters were trained.
        adapters: Two or more adapters or paths of PEFT folders.
        prompts: The unlabelled prompts to draw from.
        evaluation: Prompts, and the index of the target item of each, on which NDCG is measured.
        builder: The builder of all prompts.
        out: Path of the folder to write.
        counts: Numbers of prompts; those that exceed the number of `prompts` are left out.
        seeds: The seeds of the random draws; each gives one draw for every count.

    Returns:
        For each draw the number of prompts and the chosen weights with their NDCG@1, @3 and @10.

    Raises:
        LorarecError: An adapter cannot be used, there are fewer prompts than the smallest count, or `out` exists.
    """
    usable = [count for count in counts if count <= len(prompts)]
    if not usable:
        raise LorarecError(f"{len(prompts)} unlabelled prompts are fewer than the smallest count, {min(counts)}")
    bank = AdapterBank.load(adapters, backbone)
    entropy = Entropy(CANDIDATES, builder)
    generators = [np.random.default_rng(seed) for seed in seeds]
    draws = [(count, rng.choice(len(prompts), count, replace=False)) for count in usable for rng in generators]
    with new_folder(out) as folder:
        with evaluation_mode(backbone.model), inject(backbone.model, bank, FACTORS) as mixed:
            chosen = [
                unlabelled_weights(mixed, bank.size, [prompts[i] for i in drawn], entropy, "model")[0]
                for _, drawn in draws
            ]
            metrics = ndcg_at_weights(mixed, torch.stack(chosen), MixingExamples(builder, *evaluation))
        runs = [
            (count, EvaluatedMixture(weights.tolist(), measured))
            for (count, _), weights, measured in zip(draws, chosen, metrics, strict=True)
        ]
        record = {
            "adapters": [_path(adapter) for adapter in adapters],
            "cases": len(evaluation[0]),
            "seeds": list(seeds),
            "runs": [{"prompts": count, **mixture.as_dict()} for count, mixture in runs],
        }
        write_json(folder / "effect_of_prompts.json", record)
        plot_prompt_counts(folder / "effect_of_prompts.png", runs, bank.names)
    return runs


def _path(adapter: AdapterLike) -> str:
    return adapter.source if isinstance(adapter, Adapter) else str(adapter)

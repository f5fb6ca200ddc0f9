"""Where entropy puts the weight, and how many unlabelled prompts it takes (MoLoRec, Figures 4 and 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, write_json
from lorarec.lora.bank import AdapterBank
from lorarec.lora.combine import FACTORS
from lorarec.lora.grid_search import ndcg_at_weights
from lorarec.lora.injection import inject
from lorarec.lora.objectives import CANDIDATES, Entropy
from lorarec.lora.peft_folder import Adapter, AdapterLike
from lorarec.lora.plots import plot_prompt_counts, plot_settings
from lorarec.lora.weight_choice import choose_by_entropy
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import evaluation_mode

PROMPT_COUNTS = (10, 25, 50, 100, 200)


def where_weight_goes(
    backbone: Backbone,
    adapters: Sequence[AdapterLike],
    prompts: Mapping[str, Sequence[Example]],
    builder: PromptBuilder,
    out: str | Path,
    *,
    combine: str = FACTORS,
    objective: str = CANDIDATES,
    token_budget: int = 8192,
    overwrite: bool = False,
) -> dict[str, dict[str, Any]]:
    """Choose weights by entropy in each setting and write `weights_by_setting.json` and `.png` (Figure 4).

    Args:
        prompts: setting, such as `warm` and `new-item` -> unlabelled prompts.

    Returns:
        Setting -> `weights` (one per adapter), `entropy` there, and `steps`.

    Raises:
        LorarecError: an adapter is unusable, a setting has no prompts, or `out` exists.
    """
    bank = AdapterBank.load(adapters, backbone)
    entropy = Entropy(objective, builder)
    found: dict[str, dict[str, Any]] = {}
    with new_folder(out, overwrite, FolderKind.WEIGHTS_BY_SETTING) as folder:
        with evaluation_mode(backbone.model), inject(backbone.model, bank, combine) as mixed:
            for setting, examples in prompts.items():
                weights, trace = choose_by_entropy(mixed, bank.size, examples, entropy, "model", token_budget)
                lowest = min(step["entropy"] for step in trace.steps)
                found[setting] = {"weights": weights.tolist(), "entropy": lowest, "steps": trace.steps}
        write_json(folder / "weights_by_setting.json", {"adapters": list(map(_path, adapters)), "settings": found})
        plot_settings(
            folder / "weights_by_setting.png", bank.names, {name: each["weights"] for name, each in found.items()}
        )
    return found


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
    combine: str = FACTORS,
    objective: str = CANDIDATES,
    token_budget: int = 8192,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Choose weights from ever more unlabelled prompts and write `effect_of_prompts.json` and `.png` (Figure 5).

    The labels of `evaluation` are read after all weights are chosen.

    Args:
        prompts: unlabelled prompts to draw from; counts above their number are left out.
        evaluation: prompts and the index of the true candidate of each, to measure NDCG@1 and NDCG@3 on.
        counts: numbers of prompts.
        seeds: each gives one random draw for every count.

    Returns:
        For each draw `prompts` (their number), `weights`, `ndcg@1` and `ndcg@3`.

    Raises:
        LorarecError: an adapter is unusable, there are fewer prompts than the smallest count, or `out` exists.
    """
    usable = [count for count in counts if count <= len(prompts)]
    if not usable:
        raise LorarecError(f"{len(prompts)} unlabelled prompts are fewer than the smallest count, {min(counts)}")
    bank = AdapterBank.load(adapters, backbone)
    entropy = Entropy(objective, builder)
    generators = [np.random.default_rng(seed) for seed in seeds]
    draws = [(count, rng.choice(len(prompts), count, replace=False)) for count in usable for rng in generators]
    with new_folder(out, overwrite, FolderKind.EFFECT_OF_PROMPTS) as folder:
        with evaluation_mode(backbone.model), inject(backbone.model, bank, combine) as mixed:
            chosen = [
                choose_by_entropy(mixed, bank.size, [prompts[i] for i in drawn], entropy, "model", token_budget)[0]
                for _, drawn in draws
            ]
            figures = ndcg_at_weights(mixed, torch.stack(chosen), evaluation, builder, token_budget)
        runs = [
            {"prompts": count, "weights": weights.tolist(), **figure}
            for (count, _), weights, figure in zip(draws, chosen, figures, strict=True)
        ]
        write_json(
            folder / "effect_of_prompts.json",
            {"adapters": list(map(_path, adapters)), "cases": len(evaluation[0]), "seeds": list(seeds), "runs": runs},
        )
        plot_prompt_counts(folder / "effect_of_prompts.png", runs, bank.names)
    return runs


def _path(adapter: AdapterLike) -> str:
    return str(adapter.folder if isinstance(adapter, Adapter) else adapter)

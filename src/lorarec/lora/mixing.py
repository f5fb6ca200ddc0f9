"""`mix`: several adapters into one, by weights that are given, searched on labelled cases or found without labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import ADAPTER, new_folder, refuse_existing, versions, write_json
from lorarec.lora.bank import FACTORS, AdapterBank
from lorarec.lora.grid_search import grid_weights
from lorarec.lora.injection import inject
from lorarec.lora.objectives import CANDIDATES, Entropy
from lorarec.lora.peft_folder import Adapter, read_adapter, save_adapter
from lorarec.lora.plots import plot_entropy, plot_prompt_curve, plot_weights
from lorarec.lora.prompt_record import prompt_settings, recorded_settings, write_template
from lorarec.lora.provenance import trained_on
from lorarec.lora.simplex import check_weights
from lorarec.lora.trace import Trace
from lorarec.lora.weight_choice import choose_by_entropy
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import evaluation_mode

#: Each method and the arguments it cannot do without.
NEEDS = {"fixed": ("weights",), "grid": ("validation", "builder"), "entropy": ("prompts", "builder")}
METHODS = tuple(NEEDS)
SCOPES = ("model", "layer")
TRACE = "mix_trace.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixResult:
    """A mixture that has been written.

    Attributes:
        folder: the PEFT folder.
        weights: one per adapter, or layer name -> one per adapter.
        trace: how they were chosen.
    """

    folder: Path
    weights: list[float] | dict[str, list[float]]
    trace: Trace


def mix(
    backbone: Backbone,
    adapters: Sequence[str | Path],
    *,
    out: str | Path,
    method: str = "entropy",
    combine: str = FACTORS,
    scope: str = "model",
    weights: Sequence[float] | None = None,
    prompts: Sequence[Example] | None = None,
    validation: tuple[Sequence[Example], Sequence[int]] | None = None,
    builder: PromptBuilder | None = None,
    objective: str = CANDIDATES,
    rank: int | None = None,
    token_budget: int = 8192,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> MixResult:
    """Mix adapters of one backbone into one and write it as a plain PEFT folder with its trace and pictures.

    Args:
        adapters: PEFT folders, two or more.
        out: the folder to make.
        method: `fixed` (needs `weights`), `grid` (needs `validation` and `builder`) or `entropy` (needs `prompts` and
            `builder`; sees no labels).
        combine: `factors` (sums A and B: rank r) or `deltas` (sums B A: rank sum of r).
        scope: one set of weights for the whole `model`, or by `layer` (`entropy` only).
        weights: one per adapter, on the simplex.
        prompts: unlabelled prompts with their candidates; 50 to 100 are enough.
        validation: prompts and the index of the true candidate of each.
        builder: what built the prompts.
        objective: the entropy of `candidates` or of the first `tokens` (see `lorarec.lora.objectives`).
        rank: cut the mixture to this rank by singular value decomposition.
        token_budget: tokens in one pass, padding included.
        record: what else to keep in `lorarec.json`, such as where the prompts come from.
        overwrite: replace what is at `out`.

    Raises:
        LorarecError: bad or contradictory arguments, an unreadable adapter or one of another backbone, unequal
            ranks with `factors`, weights off the simplex, or `out` exists.
    """
    out = Path(out)
    refuse_existing(out, overwrite, ADAPTER)
    _check_choices(method, scope, adapters, weights, prompts, validation, builder)
    read = [read_adapter(folder, backbone) for folder in adapters]
    for adapter in read:
        if adapter.is_zero:
            logger.warning("adapter %s changes nothing, since B is zero in all layers: leave it out", adapter.folder)
    bank = AdapterBank.stack(read)
    bank.require(combine)
    if method == "fixed":
        chosen, trace = check_weights(weights or (), bank.size), Trace(stopped="given")
    else:
        chosen, trace = _choose(
            backbone, bank, method, combine, scope, prompts or (), validation, builder, objective, token_budget
        )
    per_layer = dict(zip(bank.layers, chosen, strict=True)) if scope == "layer" else None
    merged = bank.merge(chosen if per_layer is None else per_layer, combine, rank)
    listed = chosen.tolist() if per_layer is None else {name: row.tolist() for name, row in per_layer.items()}
    settings = {"method": method, "combine": combine, "scope": scope, "rank": rank, "weights": listed}
    if method == "entropy":
        settings |= {"objective": objective, "prompts": len(prompts or ())}
    meta = {
        "backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint},
        **sources_of(read),
        "mix": settings | dict(record or {}),
        "versions": versions(),
    }
    with new_folder(out, overwrite, ADAPTER) as folder:
        save_adapter(merged, folder, backbone.id, meta)
        write_template(folder, shared_prompt_settings(read).get("template"))
        way = {"stopped": trace.stopped, **trace.extra, "steps": trace.steps}
        write_json(folder / TRACE, {"adapters": list(map(str, adapters)), **settings, **way})
        plot_weights(folder / "weights.png", bank.names, listed)
        if method == "grid":
            plot_prompt_curve(folder / "ndcg.png", bank.names, trace.steps, ("ndcg@1", "ndcg@3", "ndcg@10"))
        if method == "entropy":
            plot_entropy(folder / "entropy.png", trace.steps)
            if scope == "model":
                plot_prompt_curve(folder / "entropy_by_lambda.png", bank.names, trace.steps, ("entropy",))
    return MixResult(out, listed, trace)


def _choose(
    backbone: Backbone,
    bank: AdapterBank,
    method: str,
    combine: str,
    scope: str,
    prompts: Sequence[Example],
    validation: tuple[Sequence[Example], Sequence[int]] | None,
    builder: PromptBuilder | None,
    objective: str,
    token_budget: int,
) -> tuple[torch.Tensor, Trace]:
    assert builder is not None
    with evaluation_mode(backbone.model), inject(backbone.model, bank, combine) as mixed:
        if validation is not None and method == "grid":
            return grid_weights(mixed, bank.size, validation, builder, token_budget)
        return choose_by_entropy(mixed, bank.size, prompts, Entropy(objective, builder), scope, token_budget)


def _check_choices(
    method: str,
    scope: str,
    adapters: Sequence[str | Path],
    weights: Sequence[float] | None,
    prompts: Sequence[Example] | None,
    validation: tuple[Sequence[Example], Sequence[int]] | None,
    builder: PromptBuilder | None,
) -> None:
    if method not in METHODS:
        raise LorarecError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if scope not in SCOPES:
        raise LorarecError(f"unknown scope {scope!r}: choose one of {', '.join(SCOPES)}")
    if len(adapters) < 2:
        raise LorarecError(f"a mixture needs two or more adapters, got {len(adapters)}")
    if scope == "layer" and method != "entropy":
        raise LorarecError(f"scope=layer needs method=entropy; method={method} has one set of weights for the model")
    given = {"weights": weights, "prompts": prompts, "validation": validation, "builder": builder}
    for name in NEEDS[method]:
        if given[name] is None:
            raise LorarecError(f"method={method} needs {name}")
    if weights is not None and method != "fixed":
        raise LorarecError(f"method={method} chooses the weights itself: leave weights out or use method=fixed")


def shared_prompt_settings(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """How all of the adapters were prompted, as far as they agree."""
    first, *others = [prompt_settings(adapter) for adapter in adapters]
    return {key: value for key, value in first.items() if all(other[key] == value for other in others)}


def sources_of(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """What `lorarec.json` says of a mixture's parts, and how it is prompted: as they were, as far as they agree."""
    agreed = shared_prompt_settings(adapters)
    return {
        "readout": agreed.pop("readout", None),
        "options": recorded_settings(agreed),
        "adapters": [
            {"path": str(adapter.folder), "fingerprint": adapter.fingerprint, "datasets": trained_on(adapter)}
            for adapter in adapters
        ],
    }

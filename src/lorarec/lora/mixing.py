"""Mixing of adapters into one, with weights that are given, or chosen on labelled or unlabelled prompts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lorarec.backbone import Backbone
from lorarec.data import Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, JsonObject, new_folder, refuse_existing, versions, write_json
from lorarec.lora.bank import AdapterBank
from lorarec.lora.calibration import Calibration, fit_temperatures
from lorarec.lora.combine import PRUNING_RULES
from lorarec.lora.grid_search import grid_weights
from lorarec.lora.injection import MixedModel, inject
from lorarec.lora.mixing_config import UNLABELLED, MixingConfig
from lorarec.lora.mixing_prompts import MixingExamples, MixingPrompts
from lorarec.lora.objectives import Agreement, Entropy
from lorarec.lora.peft_folder import Adapter, AdapterLike, read_adapter, save_adapter
from lorarec.lora.plots import plot_prompt_curve, plot_search, plot_weights
from lorarec.lora.prompt_record import require_shared_prompt
from lorarec.lora.provenance import mixture_record
from lorarec.lora.pruning import prune_and_merge
from lorarec.lora.record import MixtureRecord
from lorarec.lora.simplex import check_weights
from lorarec.lora.unlabelled_search import unlabelled_weights
from lorarec.lora.weight_search import Trace
from lorarec.options import build_options
from lorarec.scoring import evaluation_mode

TRACE_FILE = "mix_trace.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MixedAdapter(Adapter):
    """An adapter that `mix` wrote, with its weights.

    Attributes:
        weights: One weight per adapter of the mixture, or layer name -> one weight per adapter.
        trace: The mixtures that were evaluated before the weights were chosen.

    Examples:
        >>> from lorarec import Backbone, mix
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> pair = ["adapters/general", "adapters/shop"]
        >>> mixed = mix(backbone, pair, "adapters/sum", method="fixed", weights=[0.2, 0.8], combine="deltas")
        >>> mixed.weights, set(mixed.ranks.values())
        ([0.2, 0.8], {32})
    """

    weights: list[float] | dict[str, list[float]] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)


def mix(
    backbone: Backbone,
    adapters: Sequence[AdapterLike],
    out: str | Path,
    config: MixingConfig | None = None,
    *,
    dataset: Dataset | None = None,
    split: Split | None = None,
    weights: Sequence[float] | None = None,
    examples: MixingExamples | None = None,
    labelled: MixingExamples | None = None,
    overwrite: bool = False,
    **options: Any,
) -> MixedAdapter:
    """Mix adapters of one backbone into one adapter and write it as a PEFT folder.

    The method `entropy` chooses the weights at which the mixture is most confident in its answers to prompts without
    labels (MoLoRec, arXiv 2502.08271, equations 9 and 10); `agreement` chooses those at which its posterior over the
    candidates is nearest to those of the adapters, by Jensen-Shannon divergence on the same prompts; `grid` chooses
    those with the best NDCG@10 on validation cases (section 3.3); `fixed` takes the weights as given. Beside the
    adapter the folder holds `mix_trace.json`, every mixture that was evaluated, and plots.

    Args:
        backbone: The backbone on which all adapters were trained.
        adapters: Two or more adapters, paths of PEFT folders or hub ids.
        out: Path of the adapter folder to write.
        config: Options; the defaults of `MixingConfig` if None.
        dataset: The dataset that prompts and cases are drawn from, for all methods but `fixed`.
        split: A split of the dataset; if None, the split stored with it, or else the default one.
        weights: For `fixed`, one weight per adapter, on the simplex unless `task_arithmetic`.
        examples: Prompts that are built already, in place of `dataset`: with targets for `grid`, without for `entropy`
            and `agreement`.
        labelled: Prompts with targets, on which `calibrate` fits temperatures where `examples` are given.
        overwrite: Whether to replace a mixture at `out`.
        **options: Fields of `MixingConfig` by name, in place of those of `config`.

    Returns:
        The mixture with its weights and trace.

    Raises:
        LorarecError: An argument is missing, unknown or contradicts another, an adapter cannot be read or belongs to
            another backbone, the adapters were trained on different prompts, ranks differ with `factors`, weights are
            off the simplex without `task_arithmetic`, or `out` exists.

    Examples:
        >>> from lorarec import Backbone, Dataset, mix
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> pair = ["adapters/general", "adapters/shop"]
        >>> by_hand = mix(backbone, pair, "adapters/by-hand", method="fixed", weights=[0.3, 0.7])
        >>> by_hand.weights
        [0.3, 0.7]
        >>> mixed = mix(backbone, pair, "adapters/mixed", dataset=Dataset.load("data/shop"), prompts=4)
        >>> round(sum(mixed.weights), 6)
        1.0
    """
    out = Path(out)
    config = build_options(MixingConfig, vars(config or MixingConfig()) | options)
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    _check_arguments(config, adapters, weights, dataset, examples, labelled)
    read = [read_adapter(adapter, backbone) for adapter in adapters]
    for adapter in read:
        if adapter.is_zero:
            logger.warning("adapter %s changes nothing, since B is zero in all layers: leave it out", adapter.folder)
    bank = AdapterBank.stack(read)
    if config.combine not in PRUNING_RULES:
        bank.require(config.combine)
    require_shared_prompt(read)
    settings: JsonObject = {name: getattr(config, name) for name in ("method", "combine", "scope", "rank")}
    drawn_from: JsonObject = {}
    if config.method == "fixed":
        chosen, trace = check_weights(weights or (), bank.size, config.task_arithmetic), Trace(stopped="given")
    else:
        if dataset is not None:
            split = load_split(dataset) if split is None else split
            examples, labelled = _drawn(backbone, read, config, dataset, split)
            drawn_from = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint, "seed": config.seed}
            drawn_from |= {"setting": config.setting} if config.method in UNLABELLED else {}
        assert examples is not None
        with evaluation_mode(backbone.model), inject(backbone.model, bank, config.combine) as mixed:
            if config.method == "grid":
                chosen, trace = grid_weights(mixed, bank.size, examples, config.token_budget)
            else:
                chosen, trace, found = _without_labels(mixed, bank.size, config, examples, labelled)
                settings |= found
    per_layer = dict(zip(bank.layers, chosen, strict=True)) if config.scope == "layer" else None
    if config.combine in PRUNING_RULES:
        merged = prune_and_merge(bank, chosen, config.combine, config.density, config.rank, config.seed)
        settings |= {"density": config.density, "seed": config.seed}
    else:
        merged = bank.to_adapter(chosen if per_layer is None else per_layer, config.combine, config.rank)
    listed = chosen.tolist() if per_layer is None else {name: row.tolist() for name, row in per_layer.items()}
    record = replace(
        mixture_record(read),
        backbone_id=backbone.id,
        backbone_fingerprint=backbone.fingerprint,
        mix=MixtureRecord(listed, details=settings | drawn_from),
        details={"versions": versions()},
    )
    with new_folder(out, overwrite, FolderKind.ADAPTER) as folder:
        save_adapter(merged, folder, backbone.base_model, record)
        searched = {"stopped": trace.stopped, **trace.counts, "steps": trace.listed()}
        given = {"adapters": [adapter.source for adapter in read], **settings, "weights": listed}
        write_json(folder / TRACE_FILE, given | searched)
        plot_weights(folder / "weights.png", bank.names, listed)
        _plot_search(folder, bank.names, config, trace)
    return MixedAdapter(**vars(read_adapter(out)), weights=listed, trace=trace)


def _drawn(
    backbone: Backbone, adapters: Sequence[Adapter], config: MixingConfig, dataset: Dataset, split: Split
) -> tuple[MixingExamples, MixingExamples | None]:
    """Draw the prompts on which a method chooses the weights, and the labelled ones that temperatures are fitted on."""
    draw, labelled = MixingPrompts(backbone, adapters), None
    if config.method == "grid" or config.calibrate:
        labelled = MixingExamples(draw.builder, *draw.validation(dataset, split, config.cases, config.seed))
        if config.method == "grid":
            return labelled, None
    prompts = draw.unlabelled(dataset, split, config.setting, config.prompts, config.seed)
    return MixingExamples(draw.builder, prompts), labelled


def _without_labels(
    mixed: MixedModel, size: int, config: MixingConfig, examples: MixingExamples, labelled: MixingExamples | None
) -> tuple[torch.Tensor, Trace, JsonObject]:
    """Choose weights by entropy or agreement; return them, the trace, and what the record says about the search."""
    found: JsonObject = {"prompts": len(examples.prompts)}
    calibration = None
    if labelled is not None:
        calibration = Calibration(mixed, fit_temperatures(mixed, size, labelled, config.token_budget))
        found |= {"temperatures": calibration.temperatures.tolist(), "cases": len(labelled.prompts)}
    if config.method == "entropy":
        entropy = Entropy(config.objective, examples.builder, calibration=calibration)
        chosen = unlabelled_weights(mixed, size, examples.prompts, entropy, config.scope, config.token_budget)
        return *chosen, {"objective": config.objective, **found}
    agreement = Agreement(examples.builder, calibration)
    prompts = agreement.reference(mixed, size, examples.prompts, config.token_budget)
    return *unlabelled_weights(mixed, size, prompts, agreement, config.scope, config.token_budget), found


def _plot_search(folder: Path, names: Sequence[str], config: MixingConfig, trace: Trace) -> None:
    """Plot the mixtures that a search has evaluated, if there was one."""
    if config.method == "grid":
        plot_prompt_curve(folder / "ndcg.png", names, trace.steps, ("ndcg@1", "ndcg@3", "ndcg@10"))
    if config.method in UNLABELLED:
        metric = Entropy.metric if config.method == "entropy" else Agreement.metric
        plot_search(folder / f"{metric}.png", trace.steps, metric)
        if config.scope == "model":
            plot_prompt_curve(folder / f"{metric}_by_lambda.png", names, trace.steps, (metric,))


def _check_arguments(
    config: MixingConfig,
    adapters: Sequence[AdapterLike],
    weights: Sequence[float] | None,
    dataset: Dataset | None,
    examples: MixingExamples | None,
    labelled: MixingExamples | None,
) -> None:
    method = config.method
    if len(adapters) < 2:
        raise LorarecError(f"a mixture needs two or more adapters, got {len(adapters)}")
    if method == "fixed":
        if weights is None:
            raise LorarecError("method=fixed needs option weights: give one per adapter")
        return
    if weights is not None:
        raise LorarecError(f"method={method} chooses the weights itself: leave weights out or use method=fixed")
    if (dataset is None) == (examples is None):
        raise LorarecError(f"method={method} needs prompts: give either the dataset to draw them from, or examples")
    if method == "grid" and examples is not None and examples.targets is None:
        raise LorarecError("method=grid needs the target item of every example: give examples with targets")
    if (labelled is not None) != (config.calibrate and examples is not None):
        raise LorarecError("give labelled prompts with examples and calibrate=True, and only then")

"""Mixing of adapters into one, with weights that are given, or chosen on labelled or unlabelled prompts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorarec.backbone import Backbone
from lorarec.data import WARM, Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, JsonObject, new_folder, refuse_existing, versions, write_json
from lorarec.lora.bank import AdapterBank
from lorarec.lora.combine import FACTORS
from lorarec.lora.entropy_search import choose_by_entropy
from lorarec.lora.grid_search import grid_weights
from lorarec.lora.injection import inject
from lorarec.lora.mixing_prompts import MixingExamples, MixingPrompts
from lorarec.lora.objectives import CANDIDATES, Entropy
from lorarec.lora.peft_folder import Adapter, AdapterLike, read_adapter, save_adapter
from lorarec.lora.plots import plot_entropy, plot_prompt_curve, plot_weights
from lorarec.lora.prompt_record import require_shared_prompt
from lorarec.lora.provenance import mixture_record
from lorarec.lora.record import MixtureRecord
from lorarec.lora.simplex import check_weights
from lorarec.lora.weight_search import Trace
from lorarec.scoring import evaluation_mode

MIXING_METHODS = ("fixed", "grid", "entropy")
MIXING_SCOPES = ("model", "layer")
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
    *,
    method: str = "entropy",
    dataset: Dataset | None = None,
    split: Split | None = None,
    setting: str = WARM,
    prompts: int = 50,
    cases: int = 500,
    weights: Sequence[float] | None = None,
    examples: MixingExamples | None = None,
    combine: str = FACTORS,
    scope: str = "model",
    objective: str = CANDIDATES,
    rank: int | None = None,
    seed: int = 42,
    token_budget: int = 8192,
    overwrite: bool = False,
) -> MixedAdapter:
    """Mix adapters of one backbone into one adapter and write it as a PEFT folder.

    The method `entropy` chooses the weights at which the mixture is most certain of its answers to prompts without
    labels (MoLoRec, arXiv 2502.08271, equations 9 and 10); `grid` chooses those with the best NDCG@10 on validation
    cases (section 3.3); `fixed` takes the weights as given. Beside the adapter the folder holds `mix_trace.json`, every
    mixture that was evaluated, and plots.

    Args:
        backbone: The backbone on which all adapters were trained.
        adapters: Two or more adapters or paths of PEFT folders.
        out: Path of the adapter folder to write.
        method: `fixed`, `grid` or `entropy`.
        dataset: The dataset that prompts are drawn from, for `grid` and `entropy`.
        split: A split of the dataset; if None, the split stored with it, or else the default one.
        setting: For `entropy`, the setting of the split whose test users the prompts are drawn from: `warm` or
            `new-item`. Their targets are not read.
        prompts: For `entropy`, the number of unlabelled prompts.
        cases: For `grid`, the number of validation cases.
        weights: For `fixed`, one weight per adapter, on the simplex.
        examples: For `grid` and `entropy`, prompts that are built already, in place of `dataset`.
        combine: `factors` (sums the matrices A and the matrices B; the rank stays r) or `deltas` (sums the products
            B A; the rank is the sum of all r).
        scope: `model` for one set of weights, or `layer` for one set per layer (`entropy` only).
        objective: For `entropy`, the entropy over the `candidates` or over the first answer `tokens` (see
            `lorarec.lora.Entropy`).
        rank: The rank to which the mixture is truncated by a singular value decomposition, if any.
        seed: The seed of the draw of prompts or cases.
        token_budget: The maximal number of tokens in one forward pass, padding included.
        overwrite: Whether to replace a mixture at `out`.

    Returns:
        The mixture with its weights and trace.

    Raises:
        LorarecError: An argument is missing, unknown or contradicts another, an adapter cannot be read or belongs to
            another backbone, the adapters were trained on different prompts, ranks differ with `factors`, weights are
            off the simplex, or `out` exists.

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
    refuse_existing(out, overwrite, FolderKind.ADAPTER)
    _check_arguments(method, scope, adapters, weights, dataset, examples)
    read = [read_adapter(adapter, backbone) for adapter in adapters]
    for adapter in read:
        if adapter.is_zero:
            logger.warning("adapter %s changes nothing, since B is zero in all layers: leave it out", adapter.folder)
    bank = AdapterBank.stack(read)
    bank.require(combine)
    require_shared_prompt(read)
    drawn_from: dict[str, str | int] = {}
    if method == "fixed":
        chosen, trace = check_weights(weights or (), bank.size), Trace(stopped="given")
    else:
        if dataset is not None:
            split = load_split(dataset) if split is None else split
            examples = _drawn(backbone, read, method, dataset, split, setting, prompts, cases, seed)
            drawn_from = {"dataset": dataset.name, "dataset_fingerprint": dataset.fingerprint, "seed": seed}
            drawn_from |= {"setting": setting} if method == "entropy" else {}
        assert examples is not None
        with evaluation_mode(backbone.model), inject(backbone.model, bank, combine) as mixed:
            if method == "grid":
                labelled = (examples.prompts, examples.targets or ())
                chosen, trace = grid_weights(mixed, bank.size, *labelled, examples.builder, token_budget)
            else:
                entropy = Entropy(objective, examples.builder)
                chosen, trace = choose_by_entropy(mixed, bank.size, examples.prompts, entropy, scope, token_budget)
    per_layer = dict(zip(bank.layers, chosen, strict=True)) if scope == "layer" else None
    merged = bank.to_adapter(chosen if per_layer is None else per_layer, combine, rank)
    listed = chosen.tolist() if per_layer is None else {name: row.tolist() for name, row in per_layer.items()}
    settings: JsonObject = {"method": method, "combine": combine, "scope": scope, "rank": rank}
    if method == "entropy" and examples is not None:
        settings |= {"objective": objective, "prompts": len(examples.prompts)}
    record = replace(
        mixture_record(read),
        backbone_id=backbone.id,
        backbone_fingerprint=backbone.fingerprint,
        mix=MixtureRecord(listed, details=settings | drawn_from),
        details={"versions": versions()},
    )
    with new_folder(out, overwrite, FolderKind.ADAPTER) as folder:
        save_adapter(merged, folder, backbone.id, record)
        searched = {"stopped": trace.stopped, **trace.counts, "steps": trace.listed()}
        given = {"adapters": [str(adapter.folder) for adapter in read], **settings, "weights": listed}
        write_json(folder / TRACE_FILE, given | searched)
        plot_weights(folder / "weights.png", bank.names, listed)
        if method == "grid":
            plot_prompt_curve(folder / "ndcg.png", bank.names, trace.steps, ("ndcg@1", "ndcg@3", "ndcg@10"))
        if method == "entropy":
            plot_entropy(folder / "entropy.png", trace.steps)
            if scope == "model":
                plot_prompt_curve(folder / "entropy_by_lambda.png", bank.names, trace.steps, ("entropy",))
    return MixedAdapter(**vars(read_adapter(out)), weights=listed, trace=trace)


def _drawn(
    backbone: Backbone,
    adapters: Sequence[Adapter],
    method: str,
    dataset: Dataset,
    split: Split,
    setting: str,
    prompts: int,
    cases: int,
    seed: int,
) -> MixingExamples:
    """Draw the prompts on which `grid` or `entropy` chooses the weights."""
    draw = MixingPrompts(backbone, adapters)
    if method == "grid":
        return MixingExamples(draw.builder, *draw.validation(dataset, split, cases, seed))
    return MixingExamples(draw.builder, draw.unlabelled(dataset, split, setting, prompts, seed))


def _check_arguments(
    method: str,
    scope: str,
    adapters: Sequence[AdapterLike],
    weights: Sequence[float] | None,
    dataset: Dataset | None,
    examples: MixingExamples | None,
) -> None:
    if method not in MIXING_METHODS:
        raise LorarecError(f"unknown method {method!r}: choose one of {', '.join(MIXING_METHODS)}")
    if scope not in MIXING_SCOPES:
        raise LorarecError(f"unknown scope {scope!r}: choose one of {', '.join(MIXING_SCOPES)}")
    if len(adapters) < 2:
        raise LorarecError(f"a mixture needs two or more adapters, got {len(adapters)}")
    if scope == "layer" and method != "entropy":
        raise LorarecError(f"scope=layer needs method=entropy; method={method} has one set of weights for the model")
    if method == "fixed":
        if weights is None:
            raise LorarecError("method=fixed needs weights: give one per adapter")
        return
    if weights is not None:
        raise LorarecError(f"method={method} chooses the weights itself: leave weights out or use method=fixed")
    if (dataset is None) == (examples is None):
        raise LorarecError(f"method={method} needs prompts: give either the dataset to draw them from, or examples")
    if method == "grid" and examples is not None and examples.targets is None:
        raise LorarecError("method=grid needs the true candidate of every example: give examples with targets")

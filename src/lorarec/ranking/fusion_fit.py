"""Fits a fusion: its recommenders, and its last stage on validation cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import CANDIDATES, HISTORY, TARGET, Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, JsonObject, refuse_existing
from lorarec.lora import AdapterLike
from lorarec.prompts import true_places
from lorarec.ranking.fusion import INDEX_RULES, Fusion, index_of
from lorarec.ranking.index_order import INDEX, with_index_order
from lorarec.ranking.scorers import TrainedAdapter
from lorarec.recommenders import (
    CONVENTIONAL,
    LSA,
    FusionConfig,
    FusionModel,
    Recommender,
    ScorerGroup,
    TrainingData,
    divide_for_fusion,
    feature_names,
    new_recommender,
)

#: Conventional recommenders that are fused by default, and the options in which they differ from their own defaults.
DEFAULT_RECOMMENDERS: Mapping[str, JsonObject] = {
    "sasrec": {},
    "gru4rec": {},
    "unisrec": {"text_encoder": LSA, "pretrain_epochs": 0},
    "sequential-rules": {},
    "ease": {},
    "item-knn": {},
    "tf-idf": {},
    "popularity": {},
}


def fusion_recommender(name: str, options: Mapping[str, object] | None = None) -> Recommender[Any]:
    """Return an unfitted recommender by its name, with `options` in place of those of `DEFAULT_RECOMMENDERS`.

    Raises:
        LorarecError: The name or an option is unknown.
    """
    return new_recommender(name, {**DEFAULT_RECOMMENDERS.get(name, {}), **(options or {})})


def fuse(
    dataset: Dataset,
    adapters: Mapping[str, AdapterLike] | None = None,
    recommenders: Mapping[str, Recommender[Any]] | Sequence[str] = tuple(DEFAULT_RECOMMENDERS),
    out: str | Path | None = None,
    *,
    backbone: Backbone | None = None,
    split: Split | None = None,
    config: FusionConfig | None = None,
    seed: int = 42,
    progress: bool = False,
    overwrite: bool = False,
) -> Fusion:
    """Fit a learned last stage over adapters and conventional recommenders.

    The recommenders are fitted without a share of the items, and the last stage is fitted to their scores of validation
    cases in which these items are new. Recommenders that score new items do so as they do then; all others are
    fitted again, to the whole training part (see `lorarec.recommenders.Recommender.refit`). Then they learn from the
    targets of the validation cases, unless the option `hold_out_validation` is set. Adapters are not trained; only the
    words of evidence in their prompts are counted anew. Test cases are not read.

    Args:
        dataset: Dataset whose items are ranked.
        adapters: Adapters, or paths of their folders, by name.
        recommenders: Names of conventional recommenders (see `lorarec.recommenders.CONVENTIONAL`), with default
            options (UniSRec with those of `DEFAULT_RECOMMENDERS`), or unfitted recommenders by name.
        out: Folder to write the fusion into; see `Fusion.save`.
        backbone: Backbone of the adapters.
        split: Split to learn from; by default the one that is stored with the dataset.
        config: Options.
        seed: Seed of all random numbers.
        progress: Whether to show progress bars.
        overwrite: Whether to replace a fusion at `out`.

    Raises:
        LorarecError: There is nothing to fuse, a recommender is unknown or lacks something that it needs, or cannot be
            saved, adapters have no backbone, there are no validation cases, or `out` exists.

    Examples:
        >>> from lorarec import Backbone, Dataset, fuse
        >>> shop, backbone = Dataset.load("data/shop"), Backbone.from_pretrained("embedded")
        >>> fusion = fuse(shop, {"shop": "adapters/shop"}, ["item-knn", "tf-idf"], backbone=backbone)
        >>> fusion.names
        ['shop', 'item-knn', 'tf-idf']
    """
    if out is not None:
        refuse_existing(out, overwrite, FolderKind.FUSION)
    split = load_split(dataset) if split is None else split
    data = TrainingData(dataset, replace(split, test={}), backbone=backbone, seed=seed, progress=progress)
    if not isinstance(recommenders, Mapping):
        recommenders = {name: fusion_recommender(name) for name in recommenders}
    unfitted = _unfitted(adapters or {}, recommenders, backbone)
    if out is not None:
        _refuse_unsaveable(unfitted)
    fusion = fit_fusion(unfitted, data, config or FusionConfig())
    if out is not None:
        fusion.save(out, overwrite)
    return fusion


def fit_fusion(recommenders: Mapping[str, Recommender[Any]], data: TrainingData, config: FusionConfig) -> Fusion:
    """Fit a fusion of unfitted recommenders; see `fuse`.

    Args:
        recommenders: Unfitted recommenders by name; they are not changed.
        data: Data to learn from.
        config: Options.

    Raises:
        LorarecError: A recommender has the name of another part of the scores, or lacks something that it needs, or
            there are no validation cases.
    """
    taken = feature_names([*recommenders, INDEX])
    for name in recommenders:
        if taken.count(name) > 1:
            raise LorarecError(f"a recommender of a fusion cannot be called {name!r}: give it another name")
    divided = divide_for_fusion(data.split, config.hidden_items, config.cases, config.new_targets, data.seed)
    group = ScorerGroup.fit(recommenders, replace(data, split=divided.split))
    scores, targets = group.score(divided.cases), np.array(true_places(divided.cases))
    model = FusionModel.fit(list(recommenders), scores, targets, data.seed)
    pool_model, found = _fit_pool(group, divided.cases, config, data.seed) if config.pool else (None, None)
    fit = {
        "hidden_items": len(divided.hidden),
        "cases": len(divided.cases),
        "cases_with_hidden_target": divided.hidden_targets,
        "cases_with_target_in_pool": found,
        "log_loss": float(-model.log_posterior(scores, model.fitted_prior)[scores.starts + targets].mean()),
    }
    group = group.refit(data)
    if not config.hold_out_validation:
        group = group.learn_validation_targets()
    return Fusion(group, model, pool_model, config, {"split": data.split.fingerprint, "fit": fit, INDEX_RULES: True})


def _fit_pool(
    group: ScorerGroup, cases: pl.DataFrame, config: FusionConfig, seed: int
) -> tuple[FusionModel | None, int]:
    """Return the last stage for candidates of an index, and the number of cases whose target the index proposed.

    It is None if the index proposed no target.
    """
    index = index_of(group)
    pools = [[each.item_id for each in index.propose(history, config.pool)] for history in cases[HISTORY].to_list()]
    pooled = cases.with_columns(pl.Series(CANDIDATES, pools, dtype=pl.List(pl.String)))
    pooled = pooled.filter(pl.col(CANDIDATES).list.contains(pl.col(TARGET)))
    if pooled.is_empty():
        return None, 0
    scores = with_index_order(group.score(pooled))
    targets = np.array(true_places(pooled))
    return FusionModel.fit([*group.recommenders, INDEX], scores, targets, seed), len(pooled)


def _unfitted(
    adapters: Mapping[str, AdapterLike],
    recommenders: Mapping[str, Recommender[Any]],
    backbone: Backbone | None,
) -> dict[str, Recommender[Any]]:
    if adapters and backbone is None:
        raise LorarecError("a fusion with adapters needs their backbone")
    unfitted: dict[str, Recommender[Any]] = {}
    for name, adapter in adapters.items():
        assert backbone is not None
        if Path(name).name != name:  # it is the name of a folder
            raise LorarecError(f"an adapter of a fusion cannot be called {name!r}: give it another name")
        unfitted[name] = TrainedAdapter(backbone, adapter)
    if taken := sorted(unfitted.keys() & recommenders.keys()):
        raise LorarecError(f"the name {taken[0]!r} stands for an adapter and a recommender: rename the adapter")
    unfitted |= recommenders
    if not unfitted:
        raise LorarecError("there is nothing to fuse: give adapters or recommenders")
    return unfitted


def _refuse_unsaveable(recommenders: Mapping[str, Recommender[Any]]) -> None:
    """Refuse recommenders that cannot be saved, before they are trained.

    Raises:
        LorarecError: A recommender cannot be saved.
    """
    saveable = {name: each for name, each in CONVENTIONAL.items() if each.tensors is not Recommender.tensors}
    for name, each in recommenders.items():
        if isinstance(each, TrainedAdapter):
            continue
        if type(each) not in saveable.values():
            kind, choices = type(each).__name__, ", ".join(saveable)
            raise LorarecError(f"{name}: {kind} cannot be saved in a fusion: choose from {choices}")
        if "." in name:  # it separates the name from those of the recommender's tensors
            raise LorarecError(f"a recommender of a saved fusion cannot be called {name!r}: leave out the dot")

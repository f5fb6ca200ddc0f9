"""Fusion: a learned last stage over adapters and conventional recommenders, for known and for new items."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.backbone import Backbone
from lorarec.data import CANDIDATES, HISTORY, TARGET, Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import (
    FolderKind,
    JsonObject,
    file_fingerprint,
    new_folder,
    read_json,
    refuse_existing,
    versions,
    write_json,
)
from lorarec.lora import AdapterLike, save_adapter
from lorarec.options import build_options
from lorarec.prompts import true_places
from lorarec.ranking.scorers import TrainedAdapter
from lorarec.recommenders import (
    CONVENTIONAL,
    CandidateScores,
    FusionConfig,
    FusionFeatures,
    FusionModel,
    NextItemRecommender,
    Recommender,
    ScorerGroup,
    TrainingData,
    fusion_cases,
    hide_items,
)
from lorarec.retrieval import Index

RECORD, TENSORS, ADAPTERS = "fusion.json", "fusion.safetensors", "adapters"
#: Name of the scorer that stands for the order of an index, in the fusion for whole catalogues.
INDEX = "index"
FORMAT_VERSION = 1
DEFAULT_RECOMMENDERS = ("sasrec", "gru4rec", "item-knn", "tf-idf", "popularity")


class Fusion:
    """Score candidates by the fused scores of several recommenders: the log-probability that one is the right item.

    `fuse` makes a fusion. It is a conditional logit over the scores and ranks of the recommenders, fitted to validation
    cases, with weights of its own for new items: those without training interactions.

    Args:
        group: Recommenders that are fitted to the training part of a split.
        model: Last stage for given candidate sets.
        pool_model: Last stage for candidates that an index proposes, or None.
        config: Options.
        record: Entries of `fusion.json` about the fit.

    Attributes:
        names: Names of the recommenders.
        about: Description of the last scores for reports.

    Examples:
        >>> from lorarec import Dataset, fuse, load_split
        >>> shop = Dataset.load("data/shop")
        >>> fusion = fuse(shop, recommenders=["item-knn", "tf-idf", "popularity"], config=FusionConfig(pool=0))
        >>> scores = fusion.score(load_split(shop).valid[:2])
        >>> round(float(np.exp(scores[0]).sum()), 6)
        1.0
    """

    def __init__(
        self,
        group: ScorerGroup,
        model: FusionModel,
        pool_model: FusionModel | None,
        config: FusionConfig,
        record: JsonObject,
    ) -> None:
        self.group = group
        self.model = model
        self.pool_model = pool_model
        self.config = config
        self.record = record
        self.about = ""

    @property
    def names(self) -> list[str]:
        """Names of the recommenders."""
        return list(self.group.recommenders)

    def with_new_item_prior(self, prior: float | Literal["auto"]) -> "Fusion":
        """Return this fusion with another prior of new items; see `FusionConfig.new_item_prior`."""
        config = replace(self.config, new_item_prior=prior)
        return Fusion(self.group, self.model, self.pool_model, config, self.record)

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`.

        With `new_item_prior="auto"` the prior is estimated from all these cases together, without their targets.

        Returns:
            Log-probabilities (candidates,) of each case.
        """
        scores = self.group.score(cases)
        prior = self.prior(scores)
        share = f"{prior:.3g}" + (" (estimated without labels)" if self.config.new_item_prior == "auto" else "")
        self.about = f"fusion of {', '.join(self.names)}; prior of new items {share}"
        return np.split(self.model.log_posterior(scores, prior), np.cumsum(scores.sizes)[:-1])

    def prior(self, scores: CandidateScores) -> float:
        """Return the prior of new items for these cases."""
        chosen = self.config.new_item_prior
        return self.model.estimate_prior(scores) if chosen == "auto" else float(chosen)

    def parts(self, cases: pl.DataFrame) -> list[dict[str, np.ndarray]]:
        """Return how much each recommender adds to the score of each candidate.

        Returns:
            For every case, name of the recommender -> contributions (candidates,), less their mean over the candidates;
            `new item` is the part of the constant and the prior of new items. Their sum is the log-probability plus a
            constant of the case.
        """
        scores = self.group.score(cases)
        table = self.model.parts(scores, self.prior(scores))
        names = [*self.names, "new item"]
        split = np.split(table, np.cumsum(scores.sizes)[:-1])
        return [dict(zip(names, each.T, strict=True)) for each in split]

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write a fusion folder, completely or not at all: fusion.json, learned tensors and adapters.

        Raises:
            LorarecError: `out` exists already or cannot be written, or a recommender cannot be saved.
        """
        tensors: dict[str, torch.Tensor] = {}
        recommenders: dict[str, JsonObject] = {}
        adapters: dict[str, TrainedAdapter] = {}
        for name, recommender in self.group.recommenders.items():
            if isinstance(recommender, TrainedAdapter):
                adapters[name] = recommender
            else:
                recommenders[name] = {"system": _system(recommender), "options": _options(recommender)}
                tensors |= {f"{name}.{key}": each.contiguous() for key, each in recommender.tensors().items()}
        data = self.group.data
        with new_folder(out, overwrite, FolderKind.FUSION) as folder:
            save_file(tensors, folder / TENSORS)
            for name, each in adapters.items():
                save_adapter(each.adapter, folder / ADAPTERS / name, each.backbone.id, each.adapter.record)
            record = {
                "format_version": FORMAT_VERSION,
                "dataset": {"name": data.dataset.name, "fingerprint": data.dataset.fingerprint},
                "split": data.split.fingerprint,
                "seed": data.seed,
                "options": asdict(self.config),
                "scorers": self.names,
                "recommenders": recommenders,
                "candidates": _model_values(self.model),
                "pool": None if self.pool_model is None else _model_values(self.pool_model),
                **self.record,
                "versions": versions(),
                "fingerprint": file_fingerprint(folder / TENSORS),
            }
            write_json(folder / RECORD, record)

    @classmethod
    def load(
        cls, folder: str | Path, dataset: Dataset, backbone: Backbone | None = None, split: Split | None = None
    ) -> Self:
        """Load a fusion folder.

        Args:
            folder: Path of the folder.
            dataset: Dataset that the fusion was fitted to.
            backbone: Backbone of its adapters; None if it has none.
            split: Split that the fusion was fitted to; by default the one that is stored with the dataset.

        Raises:
            LorarecError: The folder is missing or damaged, belongs to another dataset or split, or has adapters and
                there is no backbone.
        """
        folder = Path(folder)
        if not (folder / RECORD).is_file():
            raise LorarecError(f"{folder} is not a fusion: make one with `lorarec fuse`")
        record = read_json(folder / RECORD)
        split = load_split(dataset) if split is None else split
        try:
            if record["format_version"] != FORMAT_VERSION:
                raise LorarecError(
                    f"{folder / RECORD} has format {record['format_version']}: update lorarec to read it"
                )
            _refuse_other_data(folder, record, dataset, split)
            if file_fingerprint(folder / TENSORS) != record["fingerprint"]:
                raise LorarecError(f"{folder / TENSORS} does not match {RECORD}: make the fusion again")
            tensors = load_file(folder / TENSORS)
            data = TrainingData(dataset, replace(split, test={}), seed=record["seed"])
            group = ScorerGroup(
                {name: _restore(folder, name, record, tensors, data, backbone) for name in record["scorers"]}, data
            )
            model = _model_of(record["candidates"], record["scorers"])
            pool = record["pool"] and _model_of(record["pool"], [*record["scorers"], INDEX])
            config = build_options(FusionConfig, record["options"])
        except LorarecError:
            raise
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise LorarecError(f"fusion {folder} is damaged ({error!r}): make it again with `lorarec fuse`") from error
        return cls(group, model, pool, config, {"fit": record["fit"]})


def fuse(
    dataset: Dataset,
    adapters: Mapping[str, AdapterLike] | None = None,
    recommenders: Mapping[str, Recommender[Any]] | Sequence[str] = DEFAULT_RECOMMENDERS,
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

    The recommenders are fitted twice: without a share of the items, to fit the last stage on validation cases in which
    these items are new; and to the whole training part, to be used. Adapters are used as they are; only the
    co-occurrence words in their prompts are counted anew. Test cases are not read.

    Args:
        dataset: Dataset whose items are ranked.
        adapters: Adapters, or paths of their folders, by name.
        recommenders: Names of conventional recommenders (see `lorarec.recommenders.CONVENTIONAL`), with default
            options, or unfitted recommenders by name.
        out: Folder to write the fusion into; see `Fusion.save`.
        backbone: Backbone of the adapters.
        split: Split to learn from; by default the one that is stored with the dataset.
        config: Options.
        seed: Seed of all random numbers.
        progress: Whether to show progress bars.
        overwrite: Whether to replace a fusion at `out`.

    Raises:
        LorarecError: There is nothing to fuse, a recommender is unknown or lacks something that it needs, adapters have
            no backbone, there are no validation cases, or `out` exists.

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
    fusion = fit_fusion(_unfitted(adapters or {}, recommenders, backbone), data, config or FusionConfig())
    if out is not None:
        fusion.save(out, overwrite)
    return fusion


def fit_fusion(recommenders: Mapping[str, Recommender[Any]], data: TrainingData, config: FusionConfig) -> Fusion:
    """Fit a fusion of unfitted recommenders; see `fuse`.

    Args:
        recommenders: Unfitted recommenders by name; they are not changed.
        data: Data to learn from.
        config: Options.
    """
    hidden_split, hidden = hide_items(data.split, config.hidden_items, data.seed)
    cases = fusion_cases(data.split, hidden, config.cases, config.new_targets, data.seed)
    if cases.is_empty():
        raise LorarecError(f"{data.dataset.name} has no validation cases on which a fusion could be fitted")
    group = ScorerGroup.fit(recommenders, replace(data, split=hidden_split))
    scores, targets = group.score(cases), np.array(true_places(cases))
    model = FusionModel.fit(list(recommenders), scores, targets, data.seed)
    pool_model, found = _fit_pool(group, cases, config, data.seed) if config.pool else (None, None)
    fit = {
        "hidden_items": len(hidden),
        "cases": len(cases),
        "cases_with_hidden_target": int(cases[TARGET].is_in(hidden.implode()).sum()),
        "cases_with_target_in_pool": found,
        "log_loss": float(-model.log_posterior(scores, model.fitted_prior)[_starts(scores) + targets].mean()),
    }
    return Fusion(ScorerGroup.fit(recommenders, data), model, pool_model, config, {"fit": fit})


def _fit_pool(
    group: ScorerGroup, cases: pl.DataFrame, config: FusionConfig, seed: int
) -> tuple[FusionModel | None, int]:
    """Return the last stage for candidates of an index, and the number of cases whose target the index proposed.

    It is None if the index proposed no target.
    """
    data = group.data
    models = (each.model for each in group.recommenders.values() if isinstance(each, NextItemRecommender))
    index = Index.build(data.dataset, histories=data.split.train, model=next(models, None))
    pools = [[each.item_id for each in index.propose(history, config.pool)] for history in cases[HISTORY].to_list()]
    pooled = cases.with_columns(pl.Series(CANDIDATES, pools, dtype=pl.List(pl.String)))
    pooled = pooled.filter(pl.col(CANDIDATES).list.contains(pl.col(TARGET)))
    if pooled.is_empty():
        return None, 0
    scores = with_index_order(group.score(pooled))
    targets = np.array(true_places(pooled))
    return FusionModel.fit([*group.recommenders, INDEX], scores, targets, seed), len(pooled)


def with_index_order(scores: CandidateScores) -> CandidateScores:
    """Return the scores with one more scorer: the candidate's place in its list, negated, so that the first is best."""
    place = np.arange(len(scores.new)) - np.repeat(_starts(scores), scores.sizes)
    return replace(scores, scores=np.column_stack([scores.scores, -place]))


def _starts(scores: CandidateScores) -> np.ndarray:
    return np.cumsum(scores.sizes) - scores.sizes


def _unfitted(
    adapters: Mapping[str, AdapterLike],
    recommenders: Mapping[str, Recommender[Any]] | Sequence[str],
    backbone: Backbone | None,
) -> dict[str, Recommender[Any]]:
    if adapters and backbone is None:
        raise LorarecError("a fusion with adapters needs their backbone")
    unfitted: dict[str, Recommender[Any]] = {}
    for name, adapter in adapters.items():
        assert backbone is not None
        unfitted[name] = TrainedAdapter(backbone, adapter)
    if not isinstance(recommenders, Mapping):
        recommenders = {name: new_recommender(name) for name in recommenders}
    if taken := sorted(unfitted.keys() & recommenders.keys()):
        raise LorarecError(f"the name {taken[0]!r} stands for an adapter and a recommender: rename the adapter")
    unfitted |= recommenders
    if not unfitted:
        raise LorarecError("there is nothing to fuse: give adapters or recommenders")
    return unfitted


def new_recommender(name: str, options: Mapping[str, object] | None = None) -> Recommender[Any]:
    """Return an unfitted conventional recommender by its name.

    Raises:
        LorarecError: The name or an option is unknown.
    """
    if name not in CONVENTIONAL:
        raise LorarecError(f"no recommender {name!r}: choose from {', '.join(CONVENTIONAL)}")
    return CONVENTIONAL[name].from_options(options or {})


def _system(recommender: Recommender[Any]) -> str:
    """Return the name of a recommender's class in `CONVENTIONAL`."""
    names = [name for name, each in CONVENTIONAL.items() if each is type(recommender)]
    if not names:
        raise LorarecError(f"{type(recommender).__name__} cannot be saved in a fusion")
    return names[0]


def _options(recommender: Recommender[Any]) -> JsonObject:
    return {each.name: getattr(recommender.config, each.name) for each in fields(recommender.config) if each.init}


def _restore(
    folder: Path,
    name: str,
    record: JsonObject,
    tensors: Mapping[str, torch.Tensor],
    data: TrainingData,
    backbone: Backbone | None,
) -> Recommender[Any]:
    """Return a fitted recommender of a fusion folder."""
    if name in record["recommenders"]:
        saved = record["recommenders"][name]
        own = {key.removeprefix(f"{name}."): each for key, each in tensors.items() if key.startswith(f"{name}.")}
        return new_recommender(saved["system"], saved["options"]).restore(data, own)
    if backbone is None:
        raise LorarecError(f"fusion {folder} has the adapter {name!r}: give its backbone")
    return TrainedAdapter(backbone, folder / ADAPTERS / name).fit(data)


def _refuse_other_data(folder: Path, record: JsonObject, dataset: Dataset, split: Split) -> None:
    made_of = record["dataset"]
    if made_of["fingerprint"] != dataset.fingerprint:
        raise LorarecError(
            f"fusion {folder} was fitted to {made_of['name']} ({made_of['fingerprint']}), not to {dataset.name} "
            f"({dataset.fingerprint}): make it again with `lorarec fuse`"
        )
    if record["split"] != split.fingerprint:
        raise LorarecError(
            f"fusion {folder} was fitted to another split of {dataset.name} ({record['split']}, not "
            f"{split.fingerprint}): make it again with `lorarec fuse`"
        )


def _model_values(model: FusionModel) -> JsonObject:
    """Return a last stage as values for JSON, from which `_model_of` makes it again exactly."""
    features = model.features
    return {
        "weights": dict(zip(features.names, model.weights.tolist(), strict=True)),
        "means": features.means.tolist(),
        "deviations": features.deviations.tolist(),
        "log_history_length": features.log_length,
        "fitted_prior": model.fitted_prior,
        "penalty": model.penalty,
    }


def _model_of(values: JsonObject, scorers: Sequence[str]) -> FusionModel:
    means, deviations = np.array(values["means"]), np.array(values["deviations"])
    features = FusionFeatures(tuple(scorers), means, deviations, values["log_history_length"])
    weights = np.array([values["weights"][name] for name in features.names])
    return FusionModel(features, weights, values["fitted_prior"], values["penalty"])

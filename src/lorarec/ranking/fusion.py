"""Fusion: a learned last stage over adapters and conventional recommenders, for known and for new items."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.backbone import Backbone
from lorarec.data import CANDIDATES, Dataset, Split, load_split
from lorarec.errors import LorarecError
from lorarec.io import (
    FolderKind,
    JsonObject,
    file_fingerprint,
    new_folder,
    read_json,
    versions,
    write_json,
)
from lorarec.lora import prompt_config, save_adapter
from lorarec.options import build_options
from lorarec.prompts import PromptConfig
from lorarec.ranking.index_order import INDEX, with_index_order
from lorarec.ranking.scorers import TrainedAdapter
from lorarec.recommenders import (
    CONVENTIONAL,
    NEW_ITEM,
    CandidateScores,
    FusionConfig,
    FusionModel,
    NextItemRecommender,
    Recommender,
    ScorerGroup,
    TrainingData,
    new_recommender,
    with_validation_targets,
)
from lorarec.retrieval import Index

RECORD, TENSORS, ADAPTERS = "fusion.json", "fusion.safetensors", "adapters"
FORMAT_VERSION = 1
#: Entry of `fusion.json`: whether sequential rules are a source of the index that the fusion was fitted to.
INDEX_RULES = "index_rules"
#: Number of cases from which the prior of new items is estimated; with fewer, the estimate would be unreliable.
MIN_CASES = 100


@dataclass(frozen=True)
class FusedScores:
    """Scores of the candidates of a case and their parts.

    Attributes:
        log_probabilities: Logarithm of the probability that each candidate is the target item (candidates,).
        parts: Name of the recommender -> what it adds to each score, less the mean over the candidates (candidates,).
            `index` is the part of the order of an index, `new item` that of the constant and the prior of new items.
            The parts of a candidate add up to its log-probability plus a constant of the case.
    """

    log_probabilities: np.ndarray
    parts: dict[str, np.ndarray]

    def parts_of(self, candidate: int) -> dict[str, float]:
        """Return the parts of the score of one candidate, given by its position."""
        return {name: float(part[candidate]) for name, part in self.parts.items()}


class Fusion:
    """Score candidates by the fused scores of several recommenders: the log-probability that one is the target item.

    `fuse` makes a fusion. It is a conditional logit over the scores of the recommenders, fitted to validation cases,
    with weights of its own for new items: those without training interactions.

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
        >>> from lorarec import Dataset, Fusion, fuse, load_split
        >>> shop = Dataset.load("data/shop")
        >>> fusion: Fusion = fuse(shop, recommenders=["item-knn", "tf-idf", "popularity"])
        >>> first = fusion.score_with_parts(load_split(shop).valid[:1])[0]
        >>> list(first.parts)
        ['item-knn', 'tf-idf', 'popularity', 'new item']
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

    @property
    def pool_parts(self) -> list[str]:
        """Names of the parts of scores of candidates of an index.

        Raises:
            LorarecError: The fusion was not fitted to candidates of an index.
        """
        return [*self.require_pool_model().features.scorers, NEW_ITEM]

    @property
    def max_history(self) -> int:
        """Number of latest items of a history that an explanation leaves out in turn: that of the adapters' prompts."""
        adapters = (each.adapter for each in self.group.recommenders.values() if isinstance(each, TrainedAdapter))
        return max((prompt_config(each).max_history for each in adapters), default=PromptConfig().max_history)

    def index(self) -> Index:
        """Build the index of the training part that the last stage was fitted to, with the next-item model if any."""
        return index_of(self.group, self.record.get(INDEX_RULES, False))

    @property
    def scores_catalogue(self) -> bool:
        """Whether all recommenders can score every item of a catalogue, as adapters cannot."""
        return all(each.scores_catalogue for each in self.group.recommenders.values())

    @property
    def new_item_share(self) -> float:
        """Share of the catalogue's items without training interactions."""
        return 1 - len(self.group.known) / len(self.group.data.dataset.titles)

    def with_new_item_prior(self, prior: float | Literal["auto"]) -> "Fusion":
        """Return this fusion with another prior of new items; see `FusionConfig.new_item_prior`."""
        config = replace(self.config, new_item_prior=prior)
        return Fusion(self.group, self.model, self.pool_model, config, self.record)

    def with_fixed_prior(self) -> "Fusion":
        """Return a fusion whose prior of new items does not depend on the cases: in place of `auto`, `new_item_share`.

        Cases that are scored in slices need it, since `auto` would estimate another prior from each slice.
        """
        return self.with_new_item_prior(self.new_item_share) if self.config.new_item_prior == "auto" else self

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`.

        Returns:
            Log-probabilities (candidates,) of each case.
        """
        return [each.log_probabilities for each in self.score_with_parts(cases)]

    def score_with_parts(
        self,
        cases: pl.DataFrame,
        *,
        pool: bool = False,
        given: Mapping[str, Sequence[np.ndarray]] | None = None,
    ) -> list[FusedScores]:
        """Score the candidates of every case, and divide the scores into the parts of the recommenders.

        Args:
            cases: Columns `user_id`, `history` and `candidates`.
            pool: Whether the candidates are those that an index proposes, in its order.
            given: Scores of some of the recommenders by name, as their `score` returns them for these cases.

        Raises:
            LorarecError: `pool` is set and the fusion was not fitted to candidates of an index; `given` has an unknown
                name; a case has no candidates, or an item that the dataset does not have; the scores of a recommender
                are not one finite number for each candidate; or a candidate is new, and there were no new items in the
                fit.
        """
        model = self.require_pool_model() if pool else self.model
        if cases.is_empty():
            return []
        scores = self.group.score(cases, given)
        if pool:
            scores = with_index_order(scores)
        if scores.new.any() and not model.scores_new_items:
            item = cases[CANDIDATES].explode()[int(np.argmax(scores.new))]
            raise LorarecError(
                f"candidate {item!r} is a new item, but no new item was among the candidates to which the fusion was "
                "fitted: fit it with option hidden_items above 0"
            )
        prior, origin = self._prior(scores, pool)
        self.about = f"fusion of {', '.join(self.names)}; prior of new items {prior:.3g} ({origin})"
        ends = np.cumsum(scores.sizes)[:-1]
        log_p = np.split(model.log_posterior(scores, prior), ends)
        parts = np.split(model.parts(scores, prior), ends)
        names = [*model.features.scorers, NEW_ITEM]
        return [FusedScores(p, dict(zip(names, each.T, strict=True))) for p, each in zip(log_p, parts, strict=True)]

    def require_pool_model(self) -> FusionModel:
        """Return the last stage for candidates that an index proposes.

        Raises:
            LorarecError: There is none.
        """
        if self.pool_model is None:
            raise LorarecError(
                "this fusion cannot recommend, since it was not fitted to candidates of an index: fit it with option "
                "pool above 0"
            )
        return self.pool_model

    def _prior(self, scores: CandidateScores, pool: bool) -> tuple[float, str]:
        """Return the prior of new items for these cases, and where it comes from."""
        chosen = self.config.new_item_prior
        if chosen != "auto":
            return float(chosen), "fixed"
        if not pool and len(scores.sizes) >= MIN_CASES:
            return self.model.estimate_prior(scores), f"estimated from {len(scores.sizes):,} cases without labels"
        return self.new_item_share, "share of new items in the catalogue"

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
                (folder / ADAPTERS / name).mkdir(parents=True)
                save_adapter(each.adapter, folder / ADAPTERS / name, each.backbone.base_model, each.adapter.record)
            record = {
                "format_version": FORMAT_VERSION,
                "dataset": {"name": data.dataset.name, "fingerprint": data.dataset.fingerprint},
                "seed": data.seed,
                "options": asdict(self.config),
                "scorers": self.names,
                "recommenders": recommenders,
                "candidates": self.model.as_json(),
                "pool": None if self.pool_model is None else self.pool_model.as_json(),
                **self.record,
                "versions": versions(),
                "fingerprint": file_fingerprint(folder / TENSORS),
                "adapters": file_fingerprint(*_adapter_files(folder)),
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
        if not isinstance(record, dict):
            raise LorarecError(f"{folder / RECORD} does not describe a fusion: make it again with `lorarec fuse`")
        try:
            if record["format_version"] != FORMAT_VERSION:
                raise LorarecError(
                    f"{folder / RECORD} has format {record['format_version']}: update lorarec to read it"
                )
            _refuse_other_dataset(folder, record, dataset)
            split = load_split(dataset) if split is None else split
            _refuse_other_split(folder, record, dataset, split)
            if file_fingerprint(folder / TENSORS) != record["fingerprint"]:
                raise LorarecError(f"{folder / TENSORS} does not match {RECORD}: make the fusion again")
            if file_fingerprint(*_adapter_files(folder)) != record["adapters"]:
                raise LorarecError(f"the adapters in {folder / ADAPTERS} do not match {RECORD}: make the fusion again")
            tensors = load_file(folder / TENSORS)
            # Folders without the option are of a version that held out the validation targets.
            config = build_options(FusionConfig, {"hold_out_validation": True, **record["options"]})
            trained_on = replace(split, test={}) if config.hold_out_validation else with_validation_targets(split)
            data = TrainingData(dataset, trained_on, seed=record["seed"])
            group = ScorerGroup(
                {name: _restore(folder, name, record, tensors, data, backbone) for name in record["scorers"]}, data
            )
            model = FusionModel.from_json(record["candidates"], record["scorers"])
            pool = record["pool"] and FusionModel.from_json(record["pool"], [*record["scorers"], INDEX])
            optional = {key: record[key] for key in (INDEX_RULES, "updated_from") if key in record}
            about_fit = {"split": record["split"], "fit": record["fit"], **optional}
        except LorarecError:
            raise
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise LorarecError(f"fusion {folder} is damaged ({error!r}): make it again with `lorarec fuse`") from error
        return cls(group, model, pool, config, about_fit)


def fusion_fingerprint(folder: str | Path) -> str:
    """Return a fingerprint of the weights, the options and the adapters of a fusion folder."""
    folder = Path(folder)
    return file_fingerprint(folder / RECORD, folder / TENSORS, *_adapter_files(folder))


def _adapter_files(folder: Path) -> list[Path]:
    """Return the paths of the weights of all adapters of a fusion folder, in a fixed order."""
    return sorted((folder / ADAPTERS).glob("*/*.safetensors"))


def has_adapters(folder: str | Path) -> bool:
    """Return whether a fusion folder has adapters, so that a backbone is needed to load it."""
    return (Path(folder) / ADAPTERS).is_dir()


def index_of(group: ScorerGroup, rules: bool = True) -> Index:
    """Build the index of the data of a group, with its first next-item model if any, and sequential rules if asked."""
    found = next((each for each in group.recommenders.values() if isinstance(each, NextItemRecommender)), None)
    config, model = (found.config, found.model) if found else (None, None)
    return Index.build(group.data.dataset, config, group.data.split.train, model=model, rules=rules)


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


def _refuse_other_dataset(folder: Path, record: JsonObject, dataset: Dataset) -> None:
    made_of = record["dataset"]
    if made_of["fingerprint"] != dataset.fingerprint:
        raise LorarecError(
            f"fusion {folder} was fitted to {made_of['name']} ({made_of['fingerprint']}), not to {dataset.name} "
            f"({dataset.fingerprint}): make it again with `lorarec fuse`"
        )


def _refuse_other_split(folder: Path, record: JsonObject, dataset: Dataset, split: Split) -> None:
    if record["split"] != split.fingerprint:
        raise LorarecError(
            f"fusion {folder} was fitted to another split of {dataset.name} ({record['split']}, not "
            f"{split.fingerprint}): make it again with `lorarec fuse`"
        )

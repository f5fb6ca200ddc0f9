"""Language models as recommenders: the backbone alone, and adapters (MoLoRec, arXiv 2502.08271).

Adapters are stored in `TrainingData.cache_dir` under a hash of the backbone, the data, the options and the seed, so
rows with the same options share them: the first row that needs an adapter trains it, others wait and read it.
"""

from abc import abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from lorarec.backbone import Backbone
from lorarec.data import EvidenceModel, EvidenceModelConfig
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.lora import read_adapter
from lorarec.options import document_options, option
from lorarec.prompts import PromptConfig, TemplateText
from lorarec.ranking import AdapterRecommender, AdapterScorer
from lorarec.recommenders import Recommender, Requirement, ScorerRecommender, TrainingData, cached_dir, fixed
from lorarec.retrieval import INDEX_VERSION, Index
from lorarec.training import TrainingConfig, train


@document_options
@dataclass(frozen=True)
class ZeroShotConfig(PromptConfig):
    """Options of `ZeroShot`: the backbone is prompted like an adapter that was trained with these options."""

    template: str | TemplateText | None = fixed(None)
    evidence: bool = fixed(False)
    evidence_model: EvidenceModel | None = fixed(None)


class ZeroShot(ScorerRecommender[ZeroShotConfig]):
    """Score with the backbone, without an adapter."""

    config_class = ZeroShotConfig
    uses_seed = False
    scores_catalogue = False
    scores_new_items = True

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return frozenset({"backbone"})

    def fit(self, data: TrainingData) -> Self:
        """Keep the backbone and the titles; nothing is learned.

        Raises:
            LorarecError: The data have no backbone.
        """
        self.scorer = AdapterScorer(
            require_backbone(data), data.dataset.titles, prompt=self.config, progress=data.progress
        )
        return self


@document_options
@dataclass(frozen=True)
class AdapterConfig(TrainingConfig):
    """Options of the training of an adapter; its seed and that of its evidence model are that of the data."""

    seed: int = fixed(42)


Config = TypeVar("Config", bound=AdapterConfig)
#: Options that are in the key of a stored adapter only if they are set.
_LATER_OPTIONS = ("hard_negatives", "evidence_model", "proximal")


class AdapterRow(AdapterRecommender[Config]):
    """Score with the backbone and an adapter, which `fit` trains.

    Attributes:
        learns_from_general: Whether the adapter learns from the general domains.
    """

    learns_from_general: ClassVar[bool] = False

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return frozenset({"backbone", "general"}) if self.learns_from_general else frozenset({"backbone"})

    def fit(self, data: TrainingData) -> Self:
        """Train the adapter unless it is in the cache.

        Raises:
            LorarecError: The data have no backbone, no cache_dir or no general domain and the adapter needs one.
        """
        folder = self.adapter_folder(data)
        self.backbone = require_backbone(data)
        self.adapter = read_adapter(folder, self.backbone)
        return self.make_scorer(data)

    @property
    def about(self) -> str:
        """One line for reports."""
        return describe_adapter(self.scorer)

    @abstractmethod
    def adapter_folder(self, data: TrainingData) -> Path:
        """Return the folder of the adapter, which is trained first if it is not in the cache."""


@document_options
@dataclass(frozen=True)
class GeneralConfig(AdapterConfig):
    """Options of `GeneralAdapter`."""

    domains: int | None = option(None, "Number of general domains that are learned from, the first; None for all.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("domains",), (), ())


class GeneralAdapter(AdapterRow[GeneralConfig]):
    """MoLoRec-G: one adapter for all general domains, not trained on the ranked domain."""

    config_class = GeneralConfig
    learns_from_general = True

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`.

        Raises:
            LorarecError: The data have fewer general domains than the option `domains` says.
        """
        if self.config.domains is None:
            return train_general(data, self.config)
        given = len(data.general)
        if self.config.domains > given:
            raise LorarecError(f"option domains is {self.config.domains}, but there are {given} general domains")
        return train_general(replace(data, general=data.general[: self.config.domains]), self.config)


class SpecificAdapter(AdapterRow[AdapterConfig]):
    """MoLoRec-S: one adapter for the ranked domain."""

    config_class = AdapterConfig

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`."""
        return train_specific(data, self.config)


@document_options
@dataclass(frozen=True)
class TALLRecConfig(AdapterConfig):
    """Options of `TALLRec`."""

    negatives: int = option(1, "Number of negatives per training case.")
    readout: Literal["verdict", "likelihood"] = fixed("verdict")
    loss: Literal["listwise", "pointwise", "next-token"] = fixed("pointwise")
    temperature: float = fixed(1.0)
    evidence: bool = fixed(False)
    evidence_model: EvidenceModel | None = fixed(None)
    new_items: float = fixed(0.1)
    new_targets: float | None = fixed(None)


class TALLRec(AdapterRow[TALLRecConfig]):
    """TALLRec (Bao et al., RecSys 2023): one adapter for the ranked domain, which answers yes or no for one item.

    The score of a candidate is the log-odds of yes against no; other candidates do not change it.

    Simplified: negatives, one for each next item by default, are drawn, since there are no ratings that say what a user
    disliked; the adapter starts from the backbone, without the paper's first stage of general instructions (Alpaca);
    the prompt is that of the other rows; the negatives of a case share its encoded history.
    """

    config_class = TALLRecConfig

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`."""
        return train_specific(data, self.config)


class SecondRound(AdapterRow[AdapterConfig]):
    """The general adapter, fine-tuned on the ranked domain (MoLoRec, section 4.3.3)."""

    config_class = AdapterConfig
    learns_from_general = True

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`."""
        return _train(data, "second-round", self.config, train_general(data, self.config))


class HybridAdapter(AdapterRow[AdapterConfig]):
    """WeaveRec (arXiv 2510.26546): one adapter for the general domains and the ranked domain together.

    How many of its cases are from the ranked domain is decided by `balance`.
    """

    config_class = AdapterConfig
    learns_from_general = True

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`."""
        return train_hybrid(data, self.config)


LANGUAGE_MODELS: dict[str, type[Recommender[Any]]] = {
    "zero-shot": ZeroShot,
    "tallrec": TALLRec,
    "general": GeneralAdapter,
    "specific": SpecificAdapter,
    "hybrid": HybridAdapter,
    "second-round": SecondRound,
}


def train_general(data: TrainingData, config: AdapterConfig) -> Path:
    """Return the folder of the general adapter, which is trained if it is not in the cache."""
    data.require("general")
    return _train(data, "general", config)


def train_specific(data: TrainingData, config: AdapterConfig) -> Path:
    """Return the folder of the specific adapter, which is trained if it is not in the cache."""
    return _train(data, "specific", config)


def train_hybrid(data: TrainingData, config: AdapterConfig) -> Path:
    """Return the folder of the hybrid adapter, which is trained if it is not in the cache."""
    data.require("general")
    return _train(data, "hybrid", config)


def _train(data: TrainingData, kind: str, config: AdapterConfig, start_from: Path | None = None) -> Path:
    """Return the folder of an adapter, which is trained, or its training resumed, if it is not complete."""
    backbone = require_backbone(data)
    domains = list(data.general) if kind in ("general", "hybrid") else []
    if kind != "general":
        domains.append((data.dataset, data.split))
    options = {each.name: getattr(config, each.name) for each in fields(TrainingConfig)} | {"seed": data.seed}
    if isinstance(config.evidence_model, EvidenceModelConfig):
        options["evidence_model"] = asdict(replace(config.evidence_model, seed=data.seed))
    training = TrainingConfig(**options)
    fingerprints = [[dataset.fingerprint, split.fingerprint] for dataset, split in domains]
    # Without the later options, the key is that of folders from before they existed.
    key_options = {name: value for name, value in options.items() if name not in _LATER_OPTIONS or value}

    def write(out: Path) -> None:
        train(
            backbone,
            domains,
            out,
            training,
            start_from=start_from,
            build_index=lambda dataset, split: Index.build(dataset, histories=split.train),
            resume=True,
            progress=data.progress,
        )

    if config.hard_negatives:
        key_options["index_version"] = INDEX_VERSION
    key = [backbone.fingerprint, fingerprints, key_options, start_from and start_from.name]
    return cached_dir(data, kind, key, write)


def describe_adapter(scorer: AdapterScorer) -> str:
    """Return the description of a scorer, with the weights of a mixture and the temperatures that chose them."""
    record = None if scorer.adapter is None else scorer.adapter.record
    mixture = None if record is None else record.mix
    if not scorer.about or mixture is None or not isinstance(mixture.weights, list):
        return scorer.about
    numbers = {"weights": mixture.weights, "temperatures": mixture.details.get("temperatures", [])}
    texts = [f"{name} {', '.join(f'{each:.2f}' for each in values)}" for name, values in numbers.items() if values]
    return "; ".join([scorer.about, *texts])


def require_backbone(data: TrainingData) -> Backbone:
    """Return the backbone.

    Raises:
        LorarecError: The data have no backbone.
    """
    data.require("backbone")
    assert data.backbone is not None
    return data.backbone

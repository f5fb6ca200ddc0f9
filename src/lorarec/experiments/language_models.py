"""Language models as recommenders: the backbone alone, adapters and their mixtures (MoLoRec, arXiv 2502.08271).

Adapters are stored in `TrainingData.cache_dir` under a hash of the backbone, the data, the options and the seed, so
rows with the same options share them: the first row that needs an adapter trains it, others wait and read it.
"""

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import polars as pl

from lorarec.backbone import Backbone
from lorarec.data import content_hash
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.lora import MixingConfig, MixingExamples, MixingPrompts, mix, sample_cases, write_random_adapter
from lorarec.options import document_options, option
from lorarec.prompts import PromptConfig, TemplateText
from lorarec.ranking import AdapterScorer, adapter_scorers
from lorarec.recommenders import Recommender, ScorerRecommender, TrainingData, cached_dir, fixed
from lorarec.retrieval import Index
from lorarec.training import TrainingConfig, train


@document_options
@dataclass(frozen=True)
class ZeroShotConfig(PromptConfig):
    """Options of `ZeroShot`: the backbone is prompted like an adapter that was trained with these options."""

    template: str | TemplateText | None = fixed(None)
    evidence: bool = fixed(False)


class ZeroShot(ScorerRecommender[ZeroShotConfig]):
    """Score with the backbone, without an adapter."""

    config_class = ZeroShotConfig
    uses_seed = False
    scores_new_items = True

    def fit(self, data: TrainingData) -> Self:
        """Keep the backbone and the titles; nothing is learned.

        Raises:
            LorarecError: The data have no backbone.
        """
        self.scorer = AdapterScorer(_backbone(data), data.dataset.titles, prompt=self.config, progress=data.progress)
        return self


@document_options
@dataclass(frozen=True)
class AdapterConfig(TrainingConfig):
    """Options of the training of an adapter; the seed is that of the data."""

    seed: int = fixed(42)


Config = TypeVar("Config", bound=AdapterConfig)


class AdapterRecommender(ScorerRecommender[Config]):
    """Score with the backbone and an adapter, which `fit` trains."""

    scorer: AdapterScorer
    scores_new_items = True

    def fit(self, data: TrainingData) -> Self:
        """Train the adapter unless it is in the cache.

        Raises:
            LorarecError: The data have no backbone, no cache_dir or no general domain and the adapter needs one.
        """
        self.scorer = _scorer(data, self.adapter(data))
        return self

    @property
    def about(self) -> str:
        """One line for reports."""
        return _describe(self.scorer)

    @abstractmethod
    def adapter(self, data: TrainingData) -> Path:
        """Return the folder of the adapter, which is trained first if it is not in the cache."""


@document_options
@dataclass(frozen=True)
class GeneralConfig(AdapterConfig):
    """Options of `GeneralAdapter`."""

    domains: int | None = option(None, "Number of general domains that are learned from, the first; None for all.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("domains",), (), ())


class GeneralAdapter(AdapterRecommender[GeneralConfig]):
    """MoLoRec-G: one adapter for all general domains, not trained on the ranked domain."""

    config_class = GeneralConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`.

        Raises:
            LorarecError: The data have fewer general domains than the option `domains` says.
        """
        if self.config.domains is None:
            return _train_general(data, self.config)
        given = len(data.general)
        if self.config.domains > given:
            raise LorarecError(f"option domains is {self.config.domains}, but there are {given} general domains")
        return _train_general(replace(data, general=data.general[: self.config.domains]), self.config)


class SpecificAdapter(AdapterRecommender[AdapterConfig]):
    """MoLoRec-S: one adapter for the ranked domain."""

    config_class = AdapterConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`."""
        return _train_specific(data, self.config)


@document_options
@dataclass(frozen=True)
class TALLRecConfig(AdapterConfig):
    """Options of `TALLRec`."""

    negatives: int = option(1, "Number of negatives per training case.")
    readout: Literal["verdict", "likelihood"] = fixed("verdict")
    loss: Literal["listwise", "pointwise", "next-token"] = fixed("pointwise")
    temperature: float = fixed(1.0)
    evidence: bool = fixed(False)
    new_items: float = fixed(0.1)
    new_targets: float | None = fixed(None)


class TALLRec(AdapterRecommender[TALLRecConfig]):
    """TALLRec (Bao et al., RecSys 2023): one adapter for the ranked domain, which answers yes or no for one item.

    The score of a candidate is the log-odds of yes against no; other candidates do not change it.

    Simplified: negatives, one for each next item by default, are drawn, since there are no ratings that say what a user
    disliked; the adapter starts from the backbone, without the paper's first stage of general instructions (Alpaca);
    the prompt is that of the other rows; the negatives of a case share its encoded history.
    """

    config_class = TALLRecConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`."""
        return _train_specific(data, self.config)


class SecondRound(AdapterRecommender[AdapterConfig]):
    """The general adapter, fine-tuned on the ranked domain (MoLoRec, section 4.3.3)."""

    config_class = AdapterConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`."""
        return _train(data, "second-round", self.config, _train_general(data, self.config))


class HybridAdapter(AdapterRecommender[AdapterConfig]):
    """WeaveRec (arXiv 2510.26546): one adapter for the general domains and the ranked domain together.

    How many of its cases are from the ranked domain is decided by `balance`.
    """

    config_class = AdapterConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`."""
        return _train_hybrid(data, self.config)


@document_options
@dataclass(frozen=True)
class MixtureConfig(AdapterConfig):
    """Options of mixtures of the specific adapter with another one.

    With `random`, the other adapter has random matrices of the same size as those of the specific adapter. It is the
    control that shows whether a mixture is better because of what the other adapter has learned (arXiv 2602.12323).
    """

    partner: Literal["general", "hybrid", "random"] = option(
        "general", "Adapter that is mixed with the specific adapter."
    )


class EqualMixture(AdapterRecommender[MixtureConfig]):
    """The specific adapter and another one with equal weights, as WeaveRec mixes it with the hybrid adapter."""

    config_class = MixtureConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`."""
        backbone, pair = _backbone(data), adapter_pair(data, self.config, self.config.partner)

        def write(out: Path) -> None:
            mix(backbone, pair, out, method="fixed", weights=[0.5, 0.5])

        return cached_dir(data, "equal", _names(pair), write)


@document_options
@dataclass(frozen=True)
class GridMixtureConfig(MixtureConfig):
    """Options of `GridMixture`."""

    cases: int = option(300, "Number of validation cases that choose the weights.")


class GridMixture(AdapterRecommender[GridMixtureConfig]):
    """MoLoRec with the weights that rank validation cases best."""

    config_class = GridMixtureConfig

    def adapter(self, data: TrainingData) -> Path:
        """See `AdapterRecommender.adapter`."""
        backbone, cases = _backbone(data), self.config.cases
        pair = adapter_pair(data, self.config, self.config.partner)

        def write(out: Path) -> None:
            mix(
                backbone,
                pair,
                out,
                method="grid",
                dataset=data.dataset,
                split=data.split,
                cases=cases,
                seed=data.seed,
            )

        return cached_dir(data, "grid", [*_names(pair), cases, data.seed], write)


@document_options
@dataclass(frozen=True)
class UnlabelledMixtureConfig(MixtureConfig):
    """Options of `EntropyMixture` and `AgreementMixture`."""

    prompts: int = option(100, "Number of unlabelled cases on which the weights are chosen.")
    calibrate: bool = option(False, "Fit a temperature per adapter on validation cases first.")
    cases: int = option(300, "Number of validation cases that temperatures are fitted on.")


class UnlabelledMixture(Recommender[UnlabelledMixtureConfig]):
    """A mixture whose weights are chosen on some of the ranked cases, without their labels.

    The weights are chosen anew for the cases of each call of `score`.
    """

    config_class = UnlabelledMixtureConfig
    scores_new_items = True
    about = ""
    method: ClassVar[Literal["entropy", "agreement"]]

    def fit(self, data: TrainingData) -> Self:
        """Train both adapters unless they are in the cache.

        Raises:
            LorarecError: The data have no backbone, no cache_dir or no general domain and the adapter needs one.
        """
        self.data, self.pair = data, adapter_pair(data, self.config, self.config.partner)
        return self

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Choose the weights on some of the cases and score the candidates of all; see `Scorer.score`."""
        data, backbone, pair, config = self.data, _backbone(self.data), self.pair, self.config
        sample = sample_cases(cases, config.prompts, data.seed)
        prompts = MixingPrompts(backbone, pair)
        builder = prompts.builder
        examples = MixingExamples(builder, prompts.examples(data.dataset, data.split, sample))

        def write(out: Path) -> None:
            labelled = None
            if config.calibrate:
                validation = prompts.validation(data.dataset, data.split, config.cases, data.seed)
                labelled = MixingExamples(builder, *validation)
            options = MixingConfig(method=self.method, calibrate=config.calibrate)
            mix(backbone, pair, out, options, examples=examples, labelled=labelled)

        calibrated_on = config.cases if config.calibrate else 0
        folder = cached_dir(data, self.method, [*_names(pair), content_hash(sample), calibrated_on], write)
        scorer = _scorer(data, folder)
        scores = scorer.score(cases)
        self.about = _describe(scorer)
        return scores


class EntropyMixture(UnlabelledMixture):
    """MoLoRec with the weights of the lowest entropy on some of the ranked cases, without their labels (equation 10).

    The weights are chosen anew for the cases of each call of `score`.
    """

    method = "entropy"


class AgreementMixture(UnlabelledMixture):
    """The mixture whose answers to some of the ranked cases are nearest to those of both adapters.

    The distance is the Jensen-Shannon divergence of the posteriors over the candidates (see `lorarec.mix`). The weights
    are chosen anew for the cases of each call of `score`.
    """

    method = "agreement"


LANGUAGE_MODELS: dict[str, type[Recommender[Any]]] = {
    "zero-shot": ZeroShot,
    "tallrec": TALLRec,
    "general": GeneralAdapter,
    "specific": SpecificAdapter,
    "hybrid": HybridAdapter,
    "second-round": SecondRound,
    "mixture-equal": EqualMixture,
    "mixture-grid": GridMixture,
    "mixture-entropy": EntropyMixture,
    "mixture-agreement": AgreementMixture,
}


def adapter_pair(
    data: TrainingData, config: AdapterConfig, partner: Literal["general", "hybrid", "random"] = "general"
) -> list[Path]:
    """Return the folders of another adapter and the specific one, which are trained if they are not in the cache."""
    specific = _train_specific(data, config)
    if partner == "random":
        return [_draw_random(data, specific), specific]
    return [_train_general(data, config) if partner == "general" else _train_hybrid(data, config), specific]


def _train_general(data: TrainingData, config: AdapterConfig) -> Path:
    data.require("general")
    return _train(data, "general", config)


def _train_specific(data: TrainingData, config: AdapterConfig) -> Path:
    return _train(data, "specific", config)


def _train_hybrid(data: TrainingData, config: AdapterConfig) -> Path:
    data.require("general")
    return _train(data, "hybrid", config)


def _draw_random(data: TrainingData, specific: Path) -> Path:
    """Return the folder of a random adapter in the form of the specific one."""

    def write(out: Path) -> None:
        write_random_adapter(specific, out, data.seed)

    return cached_dir(data, "random", [specific.name, data.seed], write)


def _train(data: TrainingData, kind: str, config: AdapterConfig, start_from: Path | None = None) -> Path:
    """Return the folder of an adapter, which is trained, or its training resumed, if it is not complete."""
    backbone = _backbone(data)
    domains = list(data.general) if kind in ("general", "hybrid") else []
    if kind != "general":
        domains.append((data.dataset, data.split))
    options = {each.name: getattr(config, each.name) for each in fields(TrainingConfig)} | {"seed": data.seed}
    training = TrainingConfig(**options)
    fingerprints = [[dataset.fingerprint, split.fingerprint] for dataset, split in domains]
    # Without hard negatives, the key is that of folders from before the option existed.
    key_options = {name: value for name, value in options.items() if name != "hard_negatives" or value}

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

    key = [backbone.fingerprint, fingerprints, key_options, start_from and start_from.name]
    return cached_dir(data, kind, key, write)


def _scorer(data: TrainingData, folder: Path) -> AdapterScorer:
    scorers = adapter_scorers(_backbone(data), data.dataset, data.split, {"row": folder}, progress=data.progress)
    return scorers["row"]


def _describe(scorer: AdapterScorer) -> str:
    """Return the description of a scorer, with the weights of a mixture and the temperatures that chose them."""
    record = None if scorer.adapter is None else scorer.adapter.record
    mixture = None if record is None else record.mix
    if not scorer.about or mixture is None or not isinstance(mixture.weights, list):
        return scorer.about
    numbers = {"weights": mixture.weights, "temperatures": mixture.details.get("temperatures", [])}
    texts = [f"{name} {', '.join(f'{each:.2f}' for each in values)}" for name, values in numbers.items() if values]
    return "; ".join([scorer.about, *texts])


def _backbone(data: TrainingData) -> Backbone:
    data.require("backbone")
    assert data.backbone is not None
    return data.backbone


def _names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]

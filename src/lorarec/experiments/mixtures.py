"""Mixtures of adapters as recommenders (MoLoRec, arXiv 2502.08271; WeaveRec, arXiv 2510.26546).

Mixtures are stored in `TrainingData.cache_dir` like the adapters that they are made of.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import polars as pl

from lorarec.data import content_hash
from lorarec.experiments.language_models import (
    AdapterConfig,
    AdapterRow,
    describe_adapter,
    require_backbone,
    train_general,
    train_hybrid,
    train_specific,
)
from lorarec.lora import MixingConfig, MixingExamples, MixingPrompts, mix, sample_cases, write_random_adapter
from lorarec.options import document_options, option
from lorarec.ranking import AdapterScorer, TrainedAdapter
from lorarec.recommenders import Recommender, Requirement, TrainingData, cached_dir

Partner = Literal["general", "hybrid", "random"]


@document_options
@dataclass(frozen=True)
class MixtureConfig(AdapterConfig):
    """Options of mixtures of the specific adapter with another one.

    With `random`, the other adapter has random matrices of the same size as those of the specific adapter. It is the
    control that shows whether a mixture is better because of what the other adapter has learned (arXiv 2602.12323).
    """

    partner: Partner = option("general", "Adapter that is mixed with the specific adapter.")


MixtureOptions = TypeVar("MixtureOptions", bound=MixtureConfig)


class Mixture(AdapterRow[MixtureOptions]):
    """Score with a mixture whose weights are chosen once."""

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return _needed_adapters(self.config)

    @property
    def mixture_weights(self) -> dict[str, float]:
        """Weights of the mixture by adapter, means over layers."""
        return _mixture_weights(self.scorer, self.config.partner)


class EqualMixture(Mixture[MixtureConfig]):
    """The specific adapter and another one with equal weights, as WeaveRec mixes it with the hybrid adapter."""

    config_class = MixtureConfig

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`."""
        backbone, pair = require_backbone(data), adapter_pair(data, self.config, self.config.partner)

        def write(out: Path) -> None:
            mix(backbone, pair, out, method="fixed", weights=[0.5, 0.5])

        return cached_dir(data, "equal", _names(pair), write)


@document_options
@dataclass(frozen=True)
class GridMixtureConfig(MixtureConfig):
    """Options of `GridMixture`."""

    cases: int = option(300, "Number of validation cases that choose the weights.")


class GridMixture(Mixture[GridMixtureConfig]):
    """MoLoRec with the weights that rank validation cases best."""

    config_class = GridMixtureConfig

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return super().requirements | {"validation"}

    def adapter_folder(self, data: TrainingData) -> Path:
        """See `AdapterRow.adapter_folder`."""
        backbone, cases = require_backbone(data), self.config.cases
        pair = adapter_pair(data, self.config, self.config.partner)

        def write(out: Path) -> None:
            options = MixingConfig(method="grid", cases=cases, seed=data.seed)
            mix(backbone, pair, out, options, dataset=data.dataset, split=data.split)

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
    scores_catalogue = False
    scores_new_items = True
    about = ""
    mixture_weights: Mapping[str, float] = {}
    method: ClassVar[Literal["entropy", "agreement"]]

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        needed = _needed_adapters(self.config)
        return needed | {"validation"} if self.config.calibrate else needed

    def fit(self, data: TrainingData) -> Self:
        """Train both adapters unless they are in the cache.

        Raises:
            LorarecError: The data have no backbone, no cache_dir or no general domain and the adapter needs one.
        """
        self.data, self.pair = data, adapter_pair(data, self.config, self.config.partner)
        return self

    def refit(self, data: TrainingData) -> Self:
        """Return a copy with the same adapters and the evidence of other data; see `Recommender.refit`."""
        other = copy.copy(self)
        other.data = data
        return other

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Choose the weights on some of the cases and score the candidates of all; see `Scorer.score`."""
        data, backbone, pair, config = self.data, require_backbone(self.data), self.pair, self.config
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
        scorer = TrainedAdapter(backbone, folder).fit(data).scorer
        scores = scorer.score(cases)
        self.about = describe_adapter(scorer)
        self.mixture_weights = _mixture_weights(scorer, config.partner)
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


MIXTURES: dict[str, type[Recommender[Any]]] = {
    "mixture-equal": EqualMixture,
    "mixture-grid": GridMixture,
    "mixture-entropy": EntropyMixture,
    "mixture-agreement": AgreementMixture,
}


def adapter_pair(data: TrainingData, config: AdapterConfig, partner: Partner = "general") -> list[Path]:
    """Return the folders of another adapter and the specific one, which are trained if they are not in the cache."""
    specific = train_specific(data, config)
    if partner == "random":
        return [_draw_random(data, specific), specific]
    return [train_general(data, config) if partner == "general" else train_hybrid(data, config), specific]


def _needed_adapters(config: MixtureConfig) -> frozenset[Requirement]:
    """Return what the training of both adapters of a mixture needs."""
    return frozenset({"backbone"}) if config.partner == "random" else frozenset({"backbone", "general"})


def _draw_random(data: TrainingData, specific: Path) -> Path:
    """Return the folder of a random adapter in the form of the specific one."""

    def write(out: Path) -> None:
        write_random_adapter(specific, out, data.seed)

    return cached_dir(data, "random", [specific.name, data.seed], write)


def _mixture_weights(scorer: AdapterScorer, partner: Partner) -> dict[str, float]:
    """Return the weights of a mixture by adapter, means over layers."""
    assert scorer.adapter is not None
    assert scorer.adapter.record is not None
    assert scorer.adapter.record.mix is not None
    weights = scorer.adapter.record.mix.weights
    assert weights is not None
    mean = np.mean([*weights.values()] if isinstance(weights, dict) else [weights], axis=0)
    return dict(zip((partner, "specific"), map(float, mean), strict=True))


def _names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]

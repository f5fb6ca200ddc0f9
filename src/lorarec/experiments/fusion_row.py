"""The fusion as a row of a table: components are other systems of the registry."""

from dataclasses import dataclass, field, fields
from typing import Any, Self

from lorarec.errors import LorarecError
from lorarec.experiments.language_models import LANGUAGE_MODELS
from lorarec.experiments.mixtures import MIXTURES
from lorarec.io import JsonObject
from lorarec.options import document_options
from lorarec.ranking import DEFAULT_RECOMMENDERS, Fusion, fit_fusion
from lorarec.recommenders import (
    CONVENTIONAL,
    FusionConfig,
    Recommender,
    Requirement,
    ScorerRecommender,
    TrainingData,
)

SYSTEMS: dict[str, type[Recommender[Any]]] = {**CONVENTIONAL, **LANGUAGE_MODELS, **MIXTURES}


@document_options
@dataclass(frozen=True)
class FusionRowConfig(FusionConfig):
    """Options of `FusionRow`."""

    systems: JsonObject = field(
        default_factory=lambda: {"specific": {}, **DEFAULT_RECOMMENDERS},
        metadata={"help": "Fused systems and their options: name -> options, with `system` if the name is another."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.recommenders()

    def recommenders(self) -> dict[str, Recommender[Any]]:
        """Return the unfitted systems by name.

        Raises:
            LorarecError: A system or an option is unknown, or there is none.
        """
        if not isinstance(self.systems, dict) or not self.systems:
            raise LorarecError(f"option systems must be a mapping of systems to options, got {self.systems!r}")
        return {name: _new_system(name, options) for name, options in self.systems.items()}


class FusionRow(ScorerRecommender[FusionRowConfig]):
    """Fuse the scores of several systems by a learned last stage; see `lorarec.ranking.Fusion`.

    The systems are fitted without the hidden items first. Those that score new items do so as they do then, others are
    fitted again with all items; see `lorarec.recommenders.Recommender.refit`. Then those that can be updated learn from
    the validation targets, unless the option `hold_out_validation` is set.
    """

    config_class = FusionRowConfig
    version = 3  # the first version fitted every system twice; the second did not learn from validation targets
    can_be_tuned = False
    scores_catalogue = False
    scores_new_items = True
    fusion: Fusion

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        needed: frozenset[Requirement] = frozenset({"validation"})
        return needed.union(*(each.requirements for each in self.config.recommenders().values()))

    def fit(self, data: TrainingData) -> Self:
        """Fit the systems and the last stage.

        Raises:
            LorarecError: The data lack something that a system needs.
        """
        config = FusionConfig(**{each.name: getattr(self.config, each.name) for each in fields(FusionConfig)})
        self.fusion = self.scorer = fit_fusion(self.config.recommenders(), data, config)
        return self


def fused_systems(recommender: Recommender[Any]) -> list[Recommender[Any]]:
    """Return the unfitted systems that a fusion fuses; for any other recommender, itself alone."""
    return [*recommender.config.recommenders().values()] if isinstance(recommender, FusionRow) else [recommender]


def _new_system(name: str, options: JsonObject | None) -> Recommender[Any]:
    if not isinstance(options, dict | None):
        raise LorarecError(f"option systems: {name} must be a mapping of options, got {options!r}")
    given = dict(options or {})
    system = given.pop("system", name)
    if system not in SYSTEMS:
        raise LorarecError(f"option systems: no system {system!r}: choose one of {', '.join(SYSTEMS)}")
    try:
        return SYSTEMS[system].from_options(given)
    except LorarecError as error:
        raise LorarecError(f"option systems: {name}: {error}") from error

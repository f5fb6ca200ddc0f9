"""Recipes of RecLoRA's tables: data, rows, seeds and analyses."""

from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from lorarec.backbone import EMBEDDED, Dtype
from lorarec.ctr import MODELS
from lorarec.errors import LorarecError
from lorarec.experiments.click_tables.rows import ANALYSES, MAIN, ClickRow, analysis_rows, main_row
from lorarec.experiments.recipe_keys import (
    TABLE,
    make_lists,
    read_keys,
    read_options,
    require_correction,
    require_counts,
    require_dtype,
    require_each,
    require_keys,
    require_seeds,
    require_texts,
)
from lorarec.io import JsonObject
from lorarec.metrics import Correction
from lorarec.options import build_options
from lorarec.personal import PersonalizationConfig

CLICKS = "clicks"
#: Options of `personalize` that have a key of their own in a recipe.
_KEYS = ("samples", "test_events", "seed")


@dataclass(frozen=True)
class ClicksRecipe:
    """The recipe of an experiment on a click log.

    Attributes:
        dataset: Dataset folder with ratings, `sample` for the bundled one, or `sample:DOMAIN`.
        backbone: Id or folder of the language model.
        dtype: Data type of the backbone's weights, as in `BackboneConfig`.
        seeds: Seeds; every row of the main table is fitted with each, the analyses with the first.
        samples: Number of training events of the language model; click-through models train on all events.
        test_events: Number of test events that are predicted; None for all.
        ctr_model: Click-through model that RecLoRA's router reads.
        options: Options of `personalize` for all rows.
        rows: Names of the main table's rows, or patterns of names, in the order in which they are fitted.
        correction: Correction of each table's p-values for the number of its tests.
        analyses: Names of the analyses, each of which varies one option of RecLoRA.
    """

    dataset: str
    backbone: str = EMBEDDED
    dtype: Dtype = "auto"
    seeds: list[int] = field(default_factory=lambda: [42])
    samples: int = PersonalizationConfig.samples
    test_events: int | None = None
    ctr_model: str = "din"
    options: JsonObject = field(default_factory=dict)
    rows: list[str] = field(default_factory=lambda: ["*"])
    correction: Correction = "holm"
    analyses: list[str] = field(default_factory=lambda: list(ANALYSES))

    @property
    def shared_options(self) -> JsonObject:
        """Options of `personalize` that all rows share and that the recipe gives."""
        return {**self.options, "samples": self.samples, "test_events": self.test_events}

    @property
    def points(self) -> dict[str, dict[str, ClickRow]]:
        """Rows by analysis and point."""
        return analysis_rows(self.analyses, self.seeds[0], PersonalizationConfig(**self.shared_options))

    @property
    def every_row(self) -> dict[str, ClickRow]:
        """Rows of the main table and the analyses by name, in the order in which they are fitted."""
        kinds = dict.fromkeys(kind for pattern in self.rows for kind in MAIN if fnmatch(kind, pattern))
        rows = [main_row(kind, seed) for kind in kinds for seed in self.seeds]
        rows += [row for points in self.points.values() for row in points.values()]
        return {row.name: row for row in rows}

    def as_dict(self) -> JsonObject:
        """Return plain values, as a recipe file holds them."""
        return {TABLE: CLICKS, **asdict(self)}


def read_clicks(path: str | Path) -> ClicksRecipe:
    """Read a recipe whose `table` is `clicks`.

    Raises:
        LorarecError: One line that names the file and the key.
    """
    return read_keys(path, ClicksRecipe, _build)


def _build(given: JsonObject) -> ClicksRecipe:
    require_keys(given, "dataset")
    require_texts(given, "dataset", "backbone", "ctr_model")
    make_lists(given, "seeds", "rows", "analyses", empty=("analyses",))
    require_dtype(given)
    require_seeds(given)
    require_counts(given, "samples", "test_events")
    require_correction(given)
    require_each(given, "analyses", lambda each: each in ANALYSES, f"of {', '.join(ANALYSES)}")
    for pattern in given.get("rows") or []:
        if not any(fnmatch(kind, str(pattern)) for kind in MAIN):
            raise LorarecError(f"key rows: no row {pattern!r}: choose from {', '.join(MAIN)}, or patterns of them")
    if given.get("ctr_model") not in (None, *MODELS):
        raise LorarecError(
            f"key ctr_model: no click-through model {given['ctr_model']!r}: choose one of {', '.join(MODELS)}"
        )
    given["options"] = read_options(given, "options", "options of `lorarec personal train`")
    if taken := [key for key in given["options"] if key in _KEYS]:
        raise LorarecError(f"key options.{taken[0]}: use the key {'seeds' if taken[0] == 'seed' else taken[0]}")
    recipe = ClicksRecipe(**{key: value for key, value in given.items() if value is not None})
    try:
        build_options(PersonalizationConfig, recipe.shared_options)
    except LorarecError as error:
        raise LorarecError(f"key options: {error}") from error
    return recipe

"""The recipe of RecLoRA's tables: which data, rows, seeds and analyses."""

from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lorarec.backbone import EMBEDDED
from lorarec.ctr import MODELS
from lorarec.errors import LorarecError
from lorarec.experiments.click_tables.rows import ANALYSES, MAIN, ClickRow, analysed, main_row
from lorarec.experiments.recipe_keys import (
    TABLE,
    make_lists,
    need_counts,
    need_each,
    need_given,
    need_seeds,
    need_texts,
    options_of,
    read_keys,
)
from lorarec.options import build_options
from lorarec.personal import PersonalizationConfig

CLICKS = "clicks"
#: Options of `personalize` that are keys of a recipe, or that its seeds say.
_KEYS = ("samples", "test_events", "seed")


@dataclass(frozen=True)
class ClicksRecipe:
    """An experiment on a click log.

    Attributes:
        dataset: a dataset folder with ratings, `sample` for the bundled one, or `sample:DOMAIN`.
        backbone: id or folder of the language model.
        seeds: every row of the main table is done with each; the analyses with the first.
        samples: training events of the language model; conventional recommenders have them all.
        test_events: test events that are predicted; all of them when None.
        crm: the conventional recommender that RecLoRA's router reads.
        options: of `personalize`, for all rows.
        rows: names of the main table's rows, or patterns of them, in the order in which they are done.
        analyses: what is varied of RecLoRA.
    """

    dataset: str
    backbone: str = EMBEDDED
    seeds: list[int] = field(default_factory=lambda: [42])
    samples: int = PersonalizationConfig.samples
    test_events: int | None = None
    crm: str = "din"
    options: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=lambda: ["*"])
    analyses: list[str] = field(default_factory=lambda: list(ANALYSES))

    @property
    def told(self) -> dict[str, Any]:
        """Options of `personalize` that all rows share and that are said."""
        return {**self.options, "samples": self.samples, "test_events": self.test_events}

    @property
    def points(self) -> dict[str, dict[str, ClickRow]]:
        """Analysis -> point -> its row."""
        return analysed(self.analyses, self.seeds[0], PersonalizationConfig(**self.told))

    @property
    def every_row(self) -> dict[str, ClickRow]:
        """Name -> row, of the main table and the analyses, in the order in which they are done."""
        kinds = dict.fromkeys(kind for pattern in self.rows for kind in MAIN if fnmatch(kind, pattern))
        rows = [main_row(kind, seed) for kind in kinds for seed in self.seeds]
        rows += [row for points in self.points.values() for row in points.values()]
        return {row.name: row for row in rows}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a recipe file holds them."""
        return {TABLE: CLICKS, **asdict(self)}


def read_clicks(path: str | Path) -> ClicksRecipe:
    """Read a recipe whose `table` is `clicks`.

    Raises:
        LorarecError: one line that names the file and the key.
    """
    return read_keys(path, ClicksRecipe, _checked)


def _checked(given: dict[str, Any]) -> ClicksRecipe:
    need_given(given, "dataset")
    need_texts(given, "dataset", "backbone", "crm")
    make_lists(given, "seeds", "rows", "analyses", empty=("analyses",))
    need_seeds(given)
    need_counts(given, "samples", "test_events")
    need_each("analyses", given, lambda each: each in ANALYSES, f"of {', '.join(ANALYSES)}")
    for pattern in given.get("rows") or []:
        if not any(fnmatch(kind, str(pattern)) for kind in MAIN):
            raise LorarecError(f"key rows: no row {pattern}: choose from {', '.join(MAIN)}, or patterns of them")
    if given.get("crm") not in (None, *MODELS):
        raise LorarecError(f"key crm: no conventional recommender {given['crm']}: choose one of {', '.join(MODELS)}")
    given["options"] = options_of(given, "options", "options of `lorarec personalize`")
    if taken := [key for key in given["options"] if key in _KEYS]:
        raise LorarecError(f"key options.{taken[0]}: say it in key {'seeds' if taken[0] == 'seed' else taken[0]}")
    recipe = ClicksRecipe(**{key: value for key, value in given.items() if value is not None})
    try:
        build_options(PersonalizationConfig, recipe.told)
    except LorarecError as error:
        raise LorarecError(f"key options: {error}") from error
    return recipe

"""Recipes of ranking tables: data, rows, seeds and published metrics."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from lorarec.backbone import Dtype
from lorarec.data import NEW_ITEM, WARM
from lorarec.errors import LorarecError
from lorarec.evaluation import METRICS_OF, Candidates
from lorarec.experiments.former_names import current_names
from lorarec.experiments.fusion_row import fused_systems
from lorarec.experiments.recipe_keys import (
    is_number,
    make_lists,
    parse_number_text,
    read_keys,
    read_options,
    require,
    require_correction,
    require_counts,
    require_dtype,
    require_each,
    require_keys,
    require_seeds,
    require_texts,
)
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.io import JsonObject
from lorarec.metrics import Correction
from lorarec.recommenders import BASELINES, Recommender, Requirement

SETTINGS = (WARM, NEW_ITEM)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class RowConfig:
    """Configuration of a row: a system, its options, and the values among which trials choose.

    Attributes:
        system: Name of the system, one of `RECOMMENDERS`.
        options: Options of the system.
        tune: Values to try by name of the option.
    """

    system: str
    options: JsonObject = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)

    def recommenders(self) -> Iterator[Recommender[Any]]:
        """Yield the unfitted recommenders that the row may fit: one for each combination of values to try.

        Combinations whose options do not go together are left out; their trials fail.
        """
        for values in product(*self.tune.values()):
            with suppress(LorarecError):
                options = self.options | dict(zip(self.tune, values, strict=True))
                yield RECOMMENDERS[self.system].from_options(options)


@dataclass(frozen=True)
class Recipe:
    """The recipe of a ranking experiment.

    Attributes:
        dataset: Ranked domain: a dataset folder, or `sample:DOMAIN` of the bundled sample.
        rows: Rows by name, in the order of the table.
        general: Other domains, for pre-training.
        split: Options of `lorarec.data.draw_split`; None for the dataset's stored split.
        settings: Names of the split's test settings.
        few_shot: Shares of the training users, with a table for each; empty for all users.
        candidates: Candidates of the test cases: `stored`, the split's sets, or `all`, the whole catalogue.
        pool: Number of items of a whole catalogue that an index proposes to rows that cannot score all of them.
        users: Number of test users of each setting; None for all.
        backbone: Id or folder of the language model; None for none.
        dtype: Data type of the backbone's weights, as in `BackboneConfig`.
        seeds: Seeds; each row is fitted once with each.
        trials: Number of trials of each row that has values to try.
        compare_with: Name of the row that tests compare with; None for the best other row.
        correction: Correction of each table's p-values for the number of its tests.
        paper: Published metrics by row, table (a setting, with few-shot shares as in `warm 10%`) and metric.
        source: Source of the published metrics.
    """

    dataset: str
    rows: dict[str, RowConfig]
    general: list[str] = field(default_factory=list)
    split: JsonObject | None = None
    settings: list[str] = field(default_factory=lambda: [WARM])
    few_shot: list[float] = field(default_factory=list)
    candidates: Candidates = "stored"
    pool: int = 100
    users: int | None = None
    backbone: str | None = None
    dtype: Dtype = "auto"
    seeds: list[int] = field(default_factory=lambda: [42])
    trials: int = 8
    compare_with: str | None = None
    correction: Correction = "holm"
    paper: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    source: str | None = None

    @property
    def shares(self) -> list[float | None]:
        """Shares of the training users; None stands for all of them."""
        return [*self.few_shot] or [None]

    def as_dict(self) -> JsonObject:
        """Return plain values, as a recipe file holds them."""
        return asdict(self)


def table_name(setting: str, share: float | None) -> str:
    """Return the name of a table: `warm`, or `warm 10%` with a tenth of the training users."""
    return setting if share is None else f"{setting} {100 * share:g}%"


def read_experiment(path: str | Path) -> Recipe:
    """Read a recipe of a ranking experiment. Its key `base` names another recipe, which gives missing values.

    Raises:
        LorarecError: One line that names the file and the key.
    """
    return read_keys(path, Recipe, _build)


def _build(given: JsonObject) -> Recipe:
    require_keys(given, "dataset", "rows")
    require_texts(given, "dataset", "backbone", "compare_with", "source")
    check_domains(given)
    make_lists(given, "few_shot", "seeds", empty=("few_shot",))
    require_each(given, "few_shot", lambda each: is_number(each) and 0 < each <= 1, "shares above 0 and at most 1")
    require_seeds(given)
    require_counts(given, "users", "trials", "pool")
    kind = given.get("candidates") or "stored"
    require("candidates", kind in [*METRICS_OF], " or ".join(METRICS_OF), kind)
    require_correction(given)
    require_dtype(given)
    require("rows", isinstance(given["rows"], dict), "row name -> system, options, tune", given["rows"])
    rows = {str(name): _row(str(name), row) for name, row in given["rows"].items()}
    if kind == "all" and any(not RECOMMENDERS[row.system].scores_catalogue for row in rows.values()):
        rows = {"index": RowConfig("index")} | rows  # it shows whether re-ranking beats the order of the index
    recipe = Recipe(**{key: value for key, value in given.items() if value is not None} | {"rows": rows})
    names = [*BASELINES, *rows]
    if recipe.compare_with not in (None, *names):
        raise LorarecError(f"key compare_with: no row {recipe.compare_with!r}: choose one of {', '.join(names)}")
    _check_paper(recipe, names)
    _refuse_missing_resources(recipe)
    return recipe


def check_domains(given: JsonObject) -> None:
    """Check the keys `general`, `settings` and `split`, which name the data beside the ranked domain."""
    make_lists(given, "general", "settings", empty=("general",))
    require_each(given, "general", lambda each: isinstance(each, str), "dataset folders or sample:DOMAIN")
    require_each(given, "settings", lambda each: each in SETTINGS, " or ".join(SETTINGS))
    require("split", isinstance(given.get("split"), dict | None), "options of `lorarec data split`", given.get("split"))


def _row(row: str, given: Any) -> RowConfig:
    where = f"key rows.{row}"
    given = {} if given is None else given
    if row in BASELINES:
        raise LorarecError(f"{where}: {row} is a baseline, which every table has: leave the row out or rename it")
    if not _NAME.fullmatch(row):
        raise LorarecError(f"{where}: a row's name is letters, digits, `.`, `_`, `+` and `-`")
    require(where, isinstance(given, dict), "a mapping of system, options and tune", given)
    if unknown := sorted(given.keys() - {"system", "options", "tune"}):
        raise LorarecError(f"{where}.{unknown[0]}: unknown key: choose from options, system, tune")
    system = given.get("system", row)
    if system not in RECOMMENDERS:
        raise LorarecError(f"{where}.system: no system {system!r}: choose one of {', '.join(RECOMMENDERS)}")
    options, tune = read_options(given, f"{where}.options", "a mapping"), given.get("tune") or {}
    require(f"{where}.tune", isinstance(tune, dict), "a mapping of options to lists", tune)
    if tune and not RECOMMENDERS[system].can_be_tuned:
        raise LorarecError(
            f"{where}.tune: {system} is fitted on the validation cases that would judge trials: give options instead"
        )
    for key, values in tune.items():
        require(f"{where}.tune.{key}", isinstance(values, list) and values, "a list of values to try", values)
    config_class = RECOMMENDERS[system].config_class
    options = current_names(config_class, options)
    tune = current_names(
        config_class, {key: [parse_number_text(each) for each in values] for key, values in tune.items()}
    )
    for key, tried in [("options", {})] + [("tune", {name: each}) for name, values in tune.items() for each in values]:
        try:
            RECOMMENDERS[system].from_options({**options, **tried})
        except LorarecError as error:
            raise LorarecError(f"{where}.{key}: {error}") from error
    return RowConfig(system, options, tune)


def _refuse_missing_resources(recipe: Recipe) -> None:
    """Refuse rows that need a language model, general domains, or more of them than the recipe names."""
    needed: dict[Requirement, str] = {"backbone": "a language model", "general": "general domains"}
    for key, missing in needed.items():
        rows = rows_that_need(recipe, key)
        if rows and not getattr(recipe, key):
            raise LorarecError(f"key {key}: it is missing, and {name_rows(rows)} {missing}")
    given = len(recipe.general)
    for name, row in recipe.rows.items():
        for system in (each for one in row.recommenders() for each in fused_systems(one)):
            domains = getattr(system.config, "domains", None)
            if domains is not None and domains > given:
                raise LorarecError(f"key rows.{name}: option domains is {domains}, but general names {given}")


def rows_that_need(recipe: Recipe, requirement: Requirement) -> list[str]:
    """Return the names of the rows that need something; see `Recommender.requirements`."""
    return [
        name
        for name, row in recipe.rows.items()
        if any(requirement in each.requirements for each in row.recommenders())
    ]


def name_rows(rows: Sequence[str]) -> str:
    """Return the beginning of an error message about rows: `row a needs` or `rows a, b need`."""
    return f"row {rows[0]} needs" if len(rows) == 1 else f"rows {', '.join(rows)} need"


def _check_paper(recipe: Recipe, names: Sequence[str]) -> None:
    tables = [table_name(setting, share) for setting in SETTINGS for share in recipe.shares]
    for depth, known in ((1, names), (2, tables), (3, METRICS_OF[recipe.candidates])):
        for *parents, key in _paths(recipe.paper, depth):
            if key not in known:
                where = ".".join(["paper", *parents])
                raise LorarecError(f"key {where}: unknown {key!r}: choose one of {', '.join(known)}")
    for *parents, value in _paths(recipe.paper, 4):
        require(".".join(["key paper", *parents]), is_number(value), "a number", value)


def _paths(value: Any, depth: int) -> list[list[Any]]:
    """Return every path of `depth` keys down nested mappings; the last entry is a value where the mappings end."""
    if not isinstance(value, Mapping):
        return [[value]] if depth == 1 else []
    if depth == 1:
        return [[key] for key in value]
    return [[key, *rest] for key, inner in value.items() for rest in _paths(inner, depth - 1)]

"""The recipe of a ranking table: which data, which rows, how often, and which figures stand beside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lorarec.data import NEW_ITEM, WARM
from lorarec.errors import LorarecError
from lorarec.evaluation import METRIC_NAMES
from lorarec.experiments.recipe_keys import (
    as_read,
    is_number,
    make_lists,
    need,
    need_counts,
    need_each,
    need_given,
    need_seeds,
    need_texts,
    options_of,
    read_keys,
)
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.recommenders import BASELINES

SETTINGS = (WARM, NEW_ITEM)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class RowConfig:
    """One row: a system, its options, and the values among which trials choose.

    Attributes:
        system: one of `RECOMMENDERS`.
        options: options of the system's config.
        tune: option -> values to try.
    """

    system: str
    options: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """An experiment.

    Attributes:
        dataset: the ranked domain: a dataset folder, or `sample:DOMAIN` of the bundled sample.
        rows: name -> row, in the order of the table.
        general: other domains, for pre-training.
        split: options of `lorarec.data.draw_split`; None for the dataset's stored split.
        settings: of the split's test parts.
        few_shot: shares of the training users, with a table for each; empty for all users.
        users: test users of each setting; None for all.
        backbone: id or folder of the language model; None for none.
        seeds: each row is fitted once with each.
        trials: of each row that has values to try.
        compare_with: the row that tests compare with; each row's best rival when None.
        paper: row -> table (a setting, with few-shot shares as in `warm 10%`) -> metric -> published figure.
        source: where the published figures are from.
    """

    dataset: str
    rows: dict[str, RowConfig]
    general: list[str] = field(default_factory=list)
    split: dict[str, Any] | None = None
    settings: list[str] = field(default_factory=lambda: [WARM])
    few_shot: list[float] = field(default_factory=list)
    users: int | None = None
    backbone: str | None = None
    seeds: list[int] = field(default_factory=lambda: [42])
    trials: int = 8
    compare_with: str | None = None
    paper: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    source: str | None = None

    @property
    def shares(self) -> list[float | None]:
        """Shares of the training users; None for all of them."""
        return [*self.few_shot] or [None]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a recipe file holds them."""
        return asdict(self)


def table_name(setting: str, share: float | None) -> str:
    """`warm`, or `warm 10%` of a tenth of the training users."""
    return setting if share is None else f"{setting} {100 * share:g}%"


def read_experiment(path: str | Path) -> Recipe:
    """Read a recipe of a ranking table; a key `base` names another, whose keys hold where this one says nothing.

    Raises:
        LorarecError: one line that names the file and the key.
    """
    return read_keys(path, Recipe, _checked)


def _checked(given: dict[str, Any]) -> Recipe:
    need_given(given, "dataset", "rows")
    need_texts(given, "dataset", "backbone", "compare_with", "source")
    check_domains(given)
    make_lists(given, "few_shot", "seeds", empty=("few_shot",))
    need_each("few_shot", given, lambda each: is_number(each) and 0 < each <= 1, "shares above 0 and at most 1")
    need_seeds(given)
    need_counts(given, "users", "trials")
    need("rows", isinstance(given["rows"], dict), "row name -> system, options, tune", given["rows"])
    rows = {str(name): _row(str(name), row) for name, row in given["rows"].items()}
    recipe = Recipe(**{key: value for key, value in given.items() if value is not None} | {"rows": rows})
    names = [*BASELINES, *rows]
    if recipe.compare_with not in (None, *names):
        raise LorarecError(f"key compare_with: no row {recipe.compare_with}: choose one of {', '.join(names)}")
    _check_paper(recipe, names)
    return recipe


def check_domains(given: dict[str, Any]) -> None:
    """Check the keys `general`, `settings` and `split`, which say what `Ground` reads beside the ranked domain."""
    make_lists(given, "general", "settings", empty=("general",))
    need_each("general", given, lambda each: isinstance(each, str), "dataset folders or sample:DOMAIN")
    need_each("settings", given, lambda each: each in SETTINGS, " or ".join(SETTINGS))
    need("split", isinstance(given.get("split"), dict | None), "options of `lorarec split`", given.get("split"))


def _row(row: str, given: Any) -> RowConfig:
    where = f"key rows.{row}"
    given = {} if given is None else given
    if not _NAME.fullmatch(row) or row in BASELINES:
        raise LorarecError(f"{where}: a row's name is letters, digits, `.`, `_`, `+` and `-`, and not a baseline's")
    need(where, isinstance(given, dict), "a mapping of system, options and tune", given)
    if unknown := sorted(given.keys() - {"system", "options", "tune"}):
        raise LorarecError(f"{where}.{unknown[0]}: unknown key: choose from options, system, tune")
    system = given.get("system", row)
    if system not in RECOMMENDERS:
        raise LorarecError(f"{where}.system: no system {system}: choose one of {', '.join(RECOMMENDERS)}")
    options, tune = options_of(given, f"{where}.options", "a mapping"), given.get("tune") or {}
    need(f"{where}.tune", isinstance(tune, dict), "a mapping of options to lists", tune)
    for key, values in tune.items():
        need(f"{where}.tune.{key}", isinstance(values, list) and values, "a list of values to try", values)
    tune = {key: [as_read(each) for each in values] for key, values in tune.items()}
    for key, tried in [("options", {})] + [("tune", {name: each}) for name, values in tune.items() for each in values]:
        try:
            RECOMMENDERS[system].from_options({**options, **tried})
        except LorarecError as error:
            raise LorarecError(f"{where}.{key}: {error}") from error
    return RowConfig(system, options, tune)


def _check_paper(recipe: Recipe, names: Sequence[str]) -> None:
    tables = [table_name(setting, share) for setting in SETTINGS for share in recipe.shares]
    for level, known in ((1, names), (2, tables), (3, METRIC_NAMES)):
        for *place, found in _paths(recipe.paper, level):
            if found not in known:
                where = ".".join(["paper", *place])
                raise LorarecError(f"key {where}: unknown {found}: choose one of {', '.join(known)}")
    for *place, value in _paths(recipe.paper, 4):
        need(".".join(["key paper", *place]), is_number(value), "a number", value)


def _paths(value: Any, depth: int) -> list[list[Any]]:
    """Every way down nested mappings to `depth` values."""
    if not isinstance(value, Mapping):
        return [[value]] if depth == 1 else []
    if depth == 1:
        return [[key] for key in value]
    return [[key, *rest] for key, inner in value.items() for rest in _paths(inner, depth - 1)]

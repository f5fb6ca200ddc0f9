"""The recipe of an experiment: which data, which rows, how often, and which figures stand beside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lorarec.data.split import NEW_ITEM, WARM
from lorarec.errors import LorarecError
from lorarec.evaluation.baselines import INFORMED, RANDOM
from lorarec.evaluation.result import FIGURES
from lorarec.systems import SYSTEMS
from lorarec.systems.options import refuse_options
from lorarec.training import read_recipe

BASELINES = (RANDOM, *INFORMED)
SETTINGS = (WARM, NEW_ITEM)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Row:
    """One row: a system, its options, and the values among which trials choose.

    Attributes:
        system: one of `SYSTEMS`.
        options: keyword arguments of the system.
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
    rows: dict[str, Row]
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
    """Read a recipe; a key `base` names another beside it, whose keys hold where this one says nothing.

    Raises:
        LorarecError: one line that names the file and the key.
    """
    known = {each.name for each in fields(Recipe)} | {"base"}
    given = read_recipe(path, known)
    if base := given.pop("base", None):
        given = {**read_recipe(Path(path).parent / str(base), known - {"base"}), **given}
    try:
        return _checked(given)
    except LorarecError as error:
        raise LorarecError(f"recipe {path}, {error}") from error


def _checked(given: dict[str, Any]) -> Recipe:
    for key in ("dataset", "rows"):
        if not given.get(key):
            raise LorarecError(f"key {key}: it is missing")
    for key in ("dataset", "backbone", "compare_with", "source"):
        _need(key, given.get(key) is None or isinstance(given[key], str), "a text", given.get(key))
    for key in ("general", "settings", "few_shot", "seeds"):
        if isinstance(given.get(key), str | int | float):
            given[key] = [given[key]]
        _need(key, isinstance(given.get(key, []), list), "a list", given.get(key))
    for key in ("settings", "few_shot", "seeds"):
        found = given.get(key, ["-"] if key != "few_shot" else [])
        _need(key, (found or key == "few_shot") and len(set(map(str, found))) == len(found), "different values", found)
    _all("general", given, lambda each: isinstance(each, str), "dataset folders or sample:DOMAIN")
    _all("settings", given, lambda each: each in SETTINGS, " or ".join(SETTINGS))
    _all("few_shot", given, lambda each: _number(each) and 0 < each <= 1, "shares above 0 and at most 1")
    _all("seeds", given, lambda each: type(each) is int and each >= 0, "whole numbers from 0 on")
    for key in ("users", "trials"):
        value = given.get(key)
        _need(key, value is None or (type(value) is int and value >= 1), "a whole number from 1 on", value)
    _need("split", isinstance(given.get("split"), dict | None), "options of `lorarec split`", given.get("split"))
    _need("rows", isinstance(given["rows"], dict), "row name -> system, options, tune", given["rows"])
    rows = {str(name): _row(str(name), row) for name, row in given["rows"].items()}
    recipe = Recipe(**{key: value for key, value in given.items() if value is not None} | {"rows": rows})
    names = [*BASELINES, *rows]
    if recipe.compare_with not in (None, *names):
        raise LorarecError(f"key compare_with: no row {recipe.compare_with}: choose one of {', '.join(names)}")
    _check_paper(recipe, names)
    return recipe


def _row(row: str, given: Any) -> Row:
    where = f"key rows.{row}"
    given = {} if given is None else given
    if not _NAME.fullmatch(row) or row in BASELINES:
        raise LorarecError(f"{where}: a row's name is letters, digits, `.`, `_`, `+` and `-`, and not a baseline's")
    _need(where, isinstance(given, dict), "a mapping of system, options and tune", given)
    if unknown := sorted(given.keys() - {"system", "options", "tune"}):
        raise LorarecError(f"{where}.{unknown[0]}: unknown key: choose from options, system, tune")
    system = given.get("system", row)
    if system not in SYSTEMS:
        raise LorarecError(f"{where}.system: no system {system}: choose one of {', '.join(SYSTEMS)}")
    options, tune = given.get("options") or {}, given.get("tune") or {}
    _need(f"{where}.options", isinstance(options, dict), "a mapping", options)
    _need(f"{where}.tune", isinstance(tune, dict), "a mapping of options to lists", tune)
    for key, values in tune.items():
        _need(f"{where}.tune.{key}", isinstance(values, list) and values, "a list of values to try", values)
    options = {key: _value(value) for key, value in options.items()}
    tune = {key: [_value(each) for each in values] for key, values in tune.items()}
    for key, tried in [("options", {})] + [("tune", {name: each}) for name, values in tune.items() for each in values]:
        try:
            refuse_options(SYSTEMS[system], {**options, **tried})
        except LorarecError as error:
            raise LorarecError(f"{where}.{key}: {error}") from error
    return Row(system, options, tune)


def _check_paper(recipe: Recipe, names: Sequence[str]) -> None:
    tables = [table_name(setting, share) for setting in SETTINGS for share in recipe.shares]
    for level, known in ((1, names), (2, tables), (3, FIGURES)):
        for *place, found in _paths(recipe.paper, level):
            if found not in known:
                where = ".".join(["paper", *place])
                raise LorarecError(f"key {where}: unknown {found}: choose one of {', '.join(known)}")
    for *place, value in _paths(recipe.paper, 4):
        _need(".".join(["key paper", *place]), _number(value), "a number", value)


def _paths(value: Any, depth: int) -> list[list[Any]]:
    """Every way down nested mappings to `depth` values."""
    if not isinstance(value, Mapping):
        return [[value]] if depth == 1 else []
    if depth == 1:
        return [[key] for key in value]
    return [[key, *rest] for key, inner in value.items() for rest in _paths(inner, depth - 1)]


def _all(key: str, given: dict[str, Any], usable: Any, wanted: str) -> None:
    for each in given.get(key) or []:
        _need(key, usable(each), wanted, each)


def _need(key: str, usable: Any, wanted: str, value: Any) -> None:
    if not usable:
        raise LorarecError(f"{key if key.startswith('key') else 'key ' + key}: must be {wanted}, got {value!r}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Any) -> Any:
    """YAML reads 2e-4, without a point, as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+[eE][+-]?[0-9]+", value):
        return float(value)
    return value

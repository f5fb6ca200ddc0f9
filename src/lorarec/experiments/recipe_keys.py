"""Reading and checking the keys of recipes of any kind; errors name the file and the key."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

from lorarec.backbone import Dtype
from lorarec.errors import LorarecError
from lorarec.io import JsonObject
from lorarec.metrics import Correction
from lorarec.training import read_recipe

#: Key that names the kind of a recipe's table, and its value if the key is missing.
TABLE, RANKING = "table", "ranking"
_BASE = "base"
_Recipe = TypeVar("_Recipe")


def read_table_kind(path: str | Path) -> str:
    """Return the value of the key `table` of a recipe, or of the recipe that it is based on.

    Raises:
        LorarecError: A file is missing or is no mapping.
    """
    return str(_with_base(path, None).get(TABLE, RANKING))


def read_keys(path: str | Path, kind: type, build: Callable[[JsonObject], _Recipe]) -> _Recipe:
    """Read a recipe. Its key `base` names another recipe beside it, which gives the values of missing keys.

    Args:
        kind: Dataclass whose fields are the keys.
        build: Function that checks the keys and makes the recipe from them.

    Raises:
        LorarecError: One line that names the file and the key.
    """
    given = _with_base(path, {each.name for each in fields(kind)} | {TABLE, _BASE})
    given.pop(TABLE, None)
    try:
        return build(given)
    except LorarecError as error:
        raise LorarecError(f"recipe {path}, {error}") from error


def _with_base(path: str | Path, known: set[str] | None) -> JsonObject:
    """Return the keys of a recipe and, where they are missing, those of the recipes that it is based on in turn."""
    given = read_recipe(path, known)
    file, read = Path(path), {Path(path).resolve()}
    while base := given.pop(_BASE, None):
        file = file.parent / str(base)
        if file.resolve() in read:
            raise LorarecError(f"recipe {path}, key {_BASE}: {file} is based on itself")
        read.add(file.resolve())
        given = {**read_recipe(file, known), **given}
    return given


def require(key: str, usable: object, expected: str, value: object) -> None:
    """Refuse a value that is not usable.

    Raises:
        LorarecError: The message names the key, what is expected and the value.
    """
    if not usable:
        raise LorarecError(f"{key if key.startswith('key') else 'key ' + key}: must be {expected}, got {value!r}")


def require_keys(given: JsonObject, *keys: str) -> None:
    """Refuse a recipe in which a key is missing or empty."""
    for key in keys:
        if not given.get(key):
            raise LorarecError(f"key {key}: it is missing")


def require_texts(given: JsonObject, *keys: str) -> None:
    """Refuse values that are not text."""
    for key in keys:
        require(key, given.get(key) is None or isinstance(given[key], str), "a text", given.get(key))


def require_counts(given: JsonObject, *keys: str) -> None:
    """Refuse values that are not whole numbers of at least 1."""
    for key in keys:
        value = given.get(key)
        require(key, value is None or (type(value) is int and value >= 1), "a whole number from 1 on", value)


def require_each(given: JsonObject, key: str, usable: Callable[[Any], object], expected: str) -> None:
    """Refuse a list with a value that is not usable."""
    for each in given.get(key) or []:
        require(key, usable(each), expected, each)


def require_seeds(given: JsonObject) -> None:
    """Refuse `seeds` that are not a list of whole numbers."""
    require_each(given, "seeds", lambda each: type(each) is int and each >= 0, "whole numbers from 0 on")


def require_correction(given: JsonObject) -> None:
    """Refuse a `correction` of p-values that there is not."""
    _require_choice(given, "correction", get_args(Correction))


def require_dtype(given: JsonObject) -> None:
    """Refuse a `dtype` of the backbone that there is not."""
    _require_choice(given, "dtype", get_args(Dtype))


def _require_choice(given: JsonObject, key: str, choices: tuple[str, ...]) -> None:
    value = given.get(key)
    require(key, value is None or value in choices, f"one of {', '.join(choices)}", value)


def make_lists(given: JsonObject, *keys: str, empty: tuple[str, ...] = ()) -> None:
    """Replace a single value by a list, in place; refuse equal values and lists that must not be empty.

    Args:
        empty: Keys whose lists may be empty.
    """
    for key in keys:
        if isinstance(given.get(key), str | int | float):
            given[key] = [given[key]]
        value = given.get(key)
        require(key, value is None or isinstance(value, list), "a list", value)
        usable = value is None or ((value or key in empty) and len(set(map(str, value))) == len(value))
        require(key, usable, "different values", value)


def is_number(value: object) -> bool:
    """Return whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_options(given: JsonObject, key: str, expected: str) -> JsonObject:
    """Return the mapping at the key `options`; numbers that YAML reads as text become floats.

    Args:
        key: Name of the key in error messages.
        expected: Description of the mapping in error messages.
    """
    options = given.get("options") or {}
    require(key, isinstance(options, dict), expected, options)
    return {name: parse_number_text(value) for name, value in options.items()}


def parse_number_text(value: Any) -> Any:
    """Return a number such as 2e-4, which YAML reads as text, as a float; return other values unchanged."""
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+[eE][+-]?[0-9]+", value):
        return float(value)
    return value

"""Keys of recipes of any kind, read and checked so that what is wrong is told with the file and the key."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from lorarec.errors import LorarecError
from lorarec.training import read_recipe

#: Says which kind of table a recipe is of, and what holds where that is not said.
TABLE, RANKING = "table", "ranking"
BASE = "base"
_Recipe = TypeVar("_Recipe")


def read_table(path: str | Path) -> str:
    """What the key `table` of a recipe, or of the one that it is based on, says.

    Raises:
        LorarecError: a file is missing or is no mapping.
    """
    return str(_with_base(path, None).get(TABLE, RANKING))


def read_keys(path: str | Path, kind: type, checked: Callable[[dict[str, Any]], _Recipe]) -> _Recipe:
    """Read a recipe; a key `base` names another beside it, whose keys hold where this one says nothing.

    Args:
        kind: a dataclass whose fields are the keys.
        checked: makes the recipe from the keys given.

    Raises:
        LorarecError: one line that names the file and the key.
    """
    given = _with_base(path, {each.name for each in fields(kind)} | {TABLE, BASE})
    given.pop(TABLE, None)
    try:
        return checked(given)
    except LorarecError as error:
        raise LorarecError(f"recipe {path}, {error}") from error


def _with_base(path: str | Path, known: set[str] | None) -> dict[str, Any]:
    given = read_recipe(path, known)
    if base := given.pop(BASE, None):
        given = {**read_recipe(Path(path).parent / str(base), known and known - {BASE}), **given}
    return given


def need(key: str, usable: Any, wanted: str, value: Any) -> None:
    """Refuse a value that is not usable.

    Raises:
        LorarecError: naming the key, what is wanted and the value.
    """
    if not usable:
        raise LorarecError(f"{key if key.startswith('key') else 'key ' + key}: must be {wanted}, got {value!r}")


def need_given(given: dict[str, Any], *keys: str) -> None:
    """Refuse keys that are missing or empty."""
    for key in keys:
        if not given.get(key):
            raise LorarecError(f"key {key}: it is missing")


def need_texts(given: dict[str, Any], *keys: str) -> None:
    """Refuse keys that say something else than a text."""
    for key in keys:
        need(key, given.get(key) is None or isinstance(given[key], str), "a text", given.get(key))


def need_counts(given: dict[str, Any], *keys: str) -> None:
    """Refuse keys that say something else than a whole number from 1 on."""
    for key in keys:
        value = given.get(key)
        need(key, value is None or (type(value) is int and value >= 1), "a whole number from 1 on", value)


def make_lists(given: dict[str, Any], *keys: str, empty: tuple[str, ...] = ()) -> None:
    """Make a list of a single value, in place; refuse equal values, and an empty list unless the key may have one."""
    for key in keys:
        if isinstance(given.get(key), str | int | float):
            given[key] = [given[key]]
        found = given.get(key)
        need(key, found is None or isinstance(found, list), "a list", found)
        usable = found is None or ((found or key in empty) and len(set(map(str, found))) == len(found))
        need(key, usable, "different values", found)


def need_each(key: str, given: dict[str, Any], usable: Callable[[Any], Any], wanted: str) -> None:
    """Refuse a list one of whose values is not usable."""
    for each in given.get(key) or []:
        need(key, usable(each), wanted, each)


def need_seeds(given: dict[str, Any]) -> None:
    """Refuse `seeds` that are no list of whole numbers."""
    need_each("seeds", given, lambda each: type(each) is int and each >= 0, "whole numbers from 0 on")


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def options_of(given: dict[str, Any], where: str, wanted: str) -> dict[str, Any]:
    """The key `options` of what is given, with its values as they were meant.

    Args:
        where: how the key is told of.
    """
    options = given.get("options") or {}
    need(where, isinstance(options, dict), wanted, options)
    return {key: as_read(value) for key, value in options.items()}


def as_read(value: Any) -> Any:
    """A value as it was meant: YAML reads 2e-4, without a point, as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9.]+[eE][+-]?[0-9]+", value):
        return float(value)
    return value

"""Conversion of JSON to the answers of the clients."""

from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def read_answer(kind: type[T], value: Any) -> T:
    """Convert JSON to an answer; fields that the class does not have are left out.

    Raises:
        KeyError, TypeError: The JSON is not that of the answer.
    """
    return _read(kind, value)


_types = cache(get_type_hints)


def _read(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return kind(**{name: _read(hint, value[name]) for name, hint in _types(kind).items() if name in value})
    if origin is UnionType:
        if value is None and NoneType in arguments:
            return None
        return _read(next(each for each in arguments if each is not NoneType), value)
    if origin is list:
        return [_read(arguments[0], each) for each in value]
    if origin is dict:
        return {key: _read(arguments[1], each) for key, each in value.items()}
    return value

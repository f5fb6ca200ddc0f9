"""Options: frozen dataclasses whose fields carry their help text; documentation and command line are made from them."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from lorarec.errors import LorarecError, refuse_unknown

_T = TypeVar("_T")


def option(default: _T, help: str, panel: str | None = None) -> _T:
    """Define a field of a dataclass of options.

    Args:
        default: Default value.
        help: Help text of the option, a phrase that can be read by itself.
        panel: Heading under which the command line lists the option; None for the main options.
    """
    return field(default=default, metadata={"help": help, "panel": panel})


def document_options(options: type[_T]) -> type[_T]:
    """Append an `Attributes` section, made from the help of each field, to the docstring of a dataclass of options."""
    lines = [f"    {each.name}: {each.metadata['help']}" for each in fields(options)]  # type: ignore[arg-type]
    options.__doc__ = "\n".join([inspect.getdoc(options) or "", "", "Attributes:", *lines])
    return options


def build_options(options: type[_T], values: Mapping[str, Any], kind: str = "option") -> _T:
    """Make an instance of a dataclass of options from values by name, as a recipe or a command line gives them.

    Args:
        options: A dataclass.
        values: Values by field name; fields that are missing keep their defaults.
        kind: Word for the names in the error message about an unknown one.

    Raises:
        LorarecError: If a name is unknown, or a value is of the wrong type or out of range.
    """
    refuse_unknown(options, values, kind)
    return options(**values)


def convert_options(options: Any) -> None:
    """Convert the values of a dataclass of options to their annotated types, in place; call it in `__post_init__`.

    Whole floats are accepted as integers, integers and numbers in text (YAML reads 2e-4 as text) as floats, paths as
    text.

    Raises:
        LorarecError: If a value is of another type, or is not one of the choices of its `Literal`.
    """
    types = get_type_hints(type(options))
    for each in fields(options):
        object.__setattr__(options, each.name, _convert(each.name, getattr(options, each.name), types[each.name]))


def _convert(name: str, value: Any, annotation: Any) -> Any:
    origin = get_origin(annotation)
    types = (annotation,) if origin is Literal else (dict,) if origin is dict else get_args(annotation) or (annotation,)
    choices = [choice for each in types if get_origin(each) is Literal for choice in get_args(each)]
    if type(value) in [get_origin(each) or each for each in types] or value in choices:
        return value
    if float in types and type(value) is int:
        return float(value)
    if str in types and isinstance(value, Path):
        return str(value)
    if int in types and type(value) is float and value.is_integer():
        return int(value)
    if float in types and isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    wanted = [*map(str, choices), *(_name(each) for each in types if get_origin(each) is not Literal)]
    raise LorarecError(f"option {name} must be {' or '.join(wanted)}, got {value!r}")


def _name(kind: Any) -> str:
    return "null" if kind is type(None) else str(kind.__name__)

"""Options of a command from a YAML file and from environment variables, below those of the command line."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from lorarec.errors import LorarecError
from lorarec.io import YamlNode, read_yaml_nodes

#: Beginning of the names of environment variables of `lorarec serve`.
PREFIX = "LORAREC_SERVE_"
#: Name of the option that names the file; it has no key in the file.
FILE = "config"


def use_settings(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file and of environment variables the defaults of the options of a command.

    An option on the command line takes precedence over its environment variable, that over the file, and that over the
    default. Values are read as they are written, so they mean the same everywhere. An empty variable and a null in the
    file leave an option as it is.

    Raises:
        LorarecError: If the file cannot be read, or a name or a value is not one of an option; the message names the
            variable, or the file and the line.
    """
    if context.resilient_parsing:
        return path
    options = named_options(context)
    variables = {name: text for name, text in os.environ.items() if name.startswith(PREFIX) and text}
    given = variables.pop(variable(FILE), None)
    path = path or (Path(given) if given else None)
    context.default_map = {}
    for name, value, where in (*_from_file(path, options), *_from_environment(variables, options)):
        context.default_map[name] = _checked(context, options[name], value, where)
    return path


def named_options(context: typer.Context) -> dict[str, Any]:
    """Return the arguments and options of a command that can be set, by name."""
    return {option.name: option for option in context.command.params if option.name not in ("help", "options_file")}


def variable(name: str) -> str:
    """Return the environment variable of an option."""
    return f"{PREFIX}{name.upper()}"


def _from_file(path: Path | None, options: Mapping[str, Any]) -> Iterator[tuple[str, str | list[str], str]]:
    """Yield the name of each option in the file, its value, and where it is."""
    if path is None:
        return
    members = read_yaml_nodes(path, "options file").value
    if members is not None and not isinstance(members, dict):
        raise LorarecError(f"options file {path}, line 1: give a mapping of names of options to values")
    for key, node in (members or {}).items():
        name, where = key.replace("-", "_"), f"options file {path}, line {node.line}"
        if name not in options:
            raise LorarecError(f"{where}: unknown option {key!r}: choose from {', '.join(sorted(options))}")
        if node.value is not None:
            yield name, _texts(node, f"{where}: {name}"), f"{where}: {name}"


def _texts(node: YamlNode, where: str) -> str | list[str]:
    values = node.value if isinstance(node.value, list) else [node]
    texts = [each.value for each in values if isinstance(each.value, str)]
    if len(texts) < len(values):
        raise LorarecError(f"{where} must be a value or a list of values")
    return texts if isinstance(node.value, list) else texts[0]


def _from_environment(
    variables: Mapping[str, str], options: Mapping[str, Any]
) -> Iterator[tuple[str, str | list[str], str]]:
    names = {variable(name): name for name in options}
    for given, text in variables.items():
        if given not in names:
            raise LorarecError(f"unknown environment variable {given}: choose from {', '.join(sorted(names))}")
        option = options[names[given]]
        yield names[given], text.split(",") if _takes_several(option) else text, f"environment variable {given}"


def _takes_several(option: Any) -> bool:
    return bool(getattr(option, "multiple", False))


def _checked(context: typer.Context, option: Any, value: str | list[str], where: str) -> str | list[str]:
    """Return a value as the command line would have it."""
    if isinstance(value, list) and not _takes_several(option):
        raise LorarecError(f"{where} must be one value, not a list")
    if isinstance(value, str) and _takes_several(option):
        value = [value]
    try:
        option.process_value(context, value)
    except typer.BadParameter as error:
        reason = error.message.removeprefix("Value error, ")
        raise LorarecError(f"{where}: {value!r} cannot be used: {reason}") from None
    return value

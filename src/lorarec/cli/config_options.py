"""Command-line options that are made from the fields of option dataclasses, so that help and defaults exist once."""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from lorarec.cli.messages import with_flags


@dataclass(frozen=True)
class Only:
    """Annotation of a parameter of which only some fields become options.

    Attributes:
        names: Names of these fields.
    """

    names: tuple[str, ...]


def config_options(function: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is annotated by an option dataclass with one option for each of its fields.

    Type, choices and default value of an option are those of the field. Its help text and panel are in the metadata of
    the field; the command line says unset in place of None. A field called `id` becomes an option with the name of the
    parameter. The function is called with instances of the dataclasses.

    Example:
        @config_options
        def train(*, config: TrainingConfig, backbone: Annotated[BackboneConfig, Only(("id", "dtype"))]) -> None: ...
    """
    signature = inspect.signature(function, eval_str=True)
    options: list[inspect.Parameter] = []
    configs: dict[str, tuple[Any, dict[str, str]]] = {}
    for name, parameter in signature.parameters.items():
        annotated = get_origin(parameter.annotation) is Annotated
        config, *extras = get_args(parameter.annotation) if annotated else (parameter.annotation,)
        if not is_dataclass(config):
            options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        only = next((extra.names for extra in extras if isinstance(extra, Only)), None)
        made = {field: option for field, option in _options(config, name).items() if only is None or field in only}
        configs[name] = (config, {field: option.name for field, option in made.items()})
        options += made.values()

    @functools.wraps(function)
    def command(**values: Any) -> None:
        built = {
            name: config(**{field: values.pop(option) for field, option in names.items()})
            for name, (config, names) in configs.items()
        }
        function(**built, **values)

    command.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in options}
    return command


def _options(config: Any, parameter: str) -> dict[str, inspect.Parameter]:
    """Return the option of each field of a dataclass."""
    types, made = get_type_hints(config), {}
    flags = {field.name: f"--{field.name.replace('_', '-')}" for field in fields(config)}
    for field in (each for each in fields(config) if each.init):
        name = parameter if field.name == "id" else field.name
        kind = _option_type(types[field.name])
        help_text = with_flags(re.sub(r"\bNone\b", "unset", field.metadata["help"]), flags)
        # An option that is off by default needs no second name that turns it off.
        names = [flags[name]] if kind is bool and not field.default else []
        info = typer.Option(*names, help=help_text, rich_help_panel=field.metadata.get("panel"))
        made[field.name] = inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, info]
        )
    return made


def _option_type(annotation: Any) -> Any:
    """Return the type of the option of a field; of a union with text or choices the command line takes the text."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = [member for member in members if member is not NoneType]
    has_text = str in kinds or (len(kinds) > 1 and any(get_origin(kind) is Literal for kind in kinds))
    kind = str if has_text else kinds[0]
    return kind | None if NoneType in members else kind

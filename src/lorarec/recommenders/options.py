"""Which options a system takes, so that a recipe is refused before anything is fitted."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import Parameter, signature
from typing import Any, TypeVar

from lorarec.errors import LorarecError

_System = TypeVar("_System", bound=Callable[..., Any])


def takes(options: type, *without: str) -> Callable[[_System], _System]:
    """Mark a system with the dataclass whose fields are its options.

    Args:
        options: checks the values when it is made.
        without: fields that the system sets itself, beside `seed`.
    """

    def marked(system: _System) -> _System:
        system.takes = options, {"seed", *without}  # type: ignore[attr-defined]
        return system

    return marked


def refuse_options(system: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Check options against the keyword arguments of a system and the dataclass it is marked with.

    A system that takes any keyword and is not marked checks its options when it is fitted.

    Raises:
        LorarecError: one is unknown or its value is unusable.
    """
    arguments = signature(system).parameters.values()
    known = {each.name for each in arguments if each.kind is Parameter.KEYWORD_ONLY}
    kind, without = getattr(system, "takes", (None, set()))
    if kind is None and any(each.kind is Parameter.VAR_KEYWORD for each in arguments):
        return
    of_kind = {field.name for field in fields(kind)} - without if kind else set()
    if unknown := sorted(given.keys() - known - of_kind):
        listed = ", ".join(sorted(known | of_kind)) or "none"
        raise LorarecError(f"unknown option {unknown[0]}: choose from {listed}")
    if kind is None:
        return
    try:
        kind(**{name: value for name, value in given.items() if name in of_kind})
    except TypeError as error:
        raise LorarecError(f"a value of the wrong kind among {dict(given)}: {error}") from error

"""The exception that lorarec raises for input it cannot use, and checks that all options share."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any


class LorarecError(ValueError):
    """The error that lorarec raises for input it cannot use; its message is one line that says what is wrong.

    The command line prints the message and exits with code 2. Code that uses lorarec as a library catches this type or
    `ValueError`.

    Examples:
        >>> from lorarec import Dataset, LorarecError
        >>> try:
        ...     Dataset.load("no/such/folder")
        ... except LorarecError as error:
        ...     print(error)
        no/such/folder is not a dataset folder: make one with `lorarec data import`
    """


def refuse_unknown(options: type, names: Iterable[str], kind: str = "option") -> None:
    """Refuse names that are no fields of a dataclass of options.

    Raises:
        LorarecError: A name is unknown; the message quotes it and lists the fields.
    """
    known = {field.name for field in fields(options)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise LorarecError(f"unknown {kind} {unknown[0]!r}: choose from {', '.join(sorted(known))}")


def refuse_out_of_range(
    options: Any, at_least_one: Iterable[str], not_negative: Iterable[str], positive: Iterable[str]
) -> None:
    """Check the named numbers of a dataclass of options; one that is None is unset and passes.

    Raises:
        LorarecError: A number is out of range; the message names the option.
    """
    for name in at_least_one:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise LorarecError(f"option {name} must be at least 1, got {value}")
    for name in not_negative:
        if getattr(options, name) < 0:
            raise LorarecError(f"option {name} must not be negative, got {getattr(options, name)}")
    for name in positive:
        if not getattr(options, name) > 0:
            raise LorarecError(f"option {name} must be positive, got {getattr(options, name)}")

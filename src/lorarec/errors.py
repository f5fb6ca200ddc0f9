"""The exception that lorarec raises for input it cannot use, and checks that all options share."""

import math
from collections.abc import Callable, Iterable
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
    options: Any,
    at_least_one: Iterable[str] = (),
    not_negative: Iterable[str] = (),
    positive: Iterable[str] = (),
    below_one: Iterable[str] = (),
) -> None:
    """Check the named numbers of a dataclass of options; one that is None is unset and passes.

    Args:
        options: The dataclass.
        at_least_one: Names of numbers that must be 1 or more.
        not_negative: Names of numbers that must be 0 or more.
        positive: Names of numbers that must be above 0.
        below_one: Names of numbers that must be 0 or more and below 1.

    Raises:
        LorarecError: A number is out of range, infinite or NaN; the message names the option.
    """
    rules: tuple[tuple[Iterable[str], Callable[[float], bool], str], ...] = (
        (at_least_one, lambda value: value >= 1, "must be at least 1"),
        (not_negative, lambda value: value >= 0, "must not be negative"),
        (positive, lambda value: value > 0, "must be positive"),
        (below_one, lambda value: 0 <= value < 1, "must be in [0, 1)"),
    )
    for names, holds, rule in rules:
        for name in names:
            value = getattr(options, name)
            if value is None:
                continue
            if not math.isfinite(value):
                raise LorarecError(f"option {name} must be a finite number, got {value}")
            if not holds(value):
                raise LorarecError(f"option {name} {rule}, got {value}")

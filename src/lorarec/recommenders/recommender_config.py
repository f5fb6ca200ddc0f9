"""The base class of the options of recommenders. It imports no torch, so that the command line loads fast."""

from dataclasses import dataclass, field
from typing import TypeVar

from lorarec.options import convert_options

T = TypeVar("T")


@dataclass(frozen=True)
class RecommenderConfig:
    """Base class of the options of recommenders; on its own, there are no options.

    Raises:
        LorarecError: A value is of the wrong type or out of range.
    """

    def __post_init__(self) -> None:
        convert_options(self)


def fixed(value: T) -> T:
    """Define a field of a config that has one value and is no option."""
    return field(default=value, init=False, metadata={"help": f"Always {value}."})

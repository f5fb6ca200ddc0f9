"""Names of a package that are imported when they are first used, so that the package itself is imported fast."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A `__getattr__` for a package (PEP 562).

    Type checkers are to be shown the imports themselves under `TYPE_CHECKING`: to them a module with `__getattr__` has
    every name there is.

    Args:
        package: its `__name__`.
        homes: name -> the module that has it.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return find

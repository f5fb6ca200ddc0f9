"""Packages whose names are imported when they are first used."""

import importlib
import pkgutil

import pytest


@pytest.mark.parametrize("package", ["lorarec", "lorarec.training", "lorarec.personal", "lorarec.experiments"])
def test_packages_have_every_name_that_they_list(package: str) -> None:
    module = importlib.import_module(package)
    assert all(hasattr(module, name) for name in module.__all__)
    assert not hasattr(module, "nothing")
    # Importing a submodule sets it as an attribute of the package, in place of what `__getattr__` would find.
    assert not set(module.__all__) & {each.name for each in pkgutil.iter_modules(module.__path__)}

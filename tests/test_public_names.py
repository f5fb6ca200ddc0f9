"""The names that each folder offers to the others: listed in its `__init__.pyi`, and loaded on first use."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lorarec

ROOT = Path(lorarec.__file__).parent
FOLDERS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/__init__.pyi"))
PACKAGES = ["lorarec", *(f"lorarec.{folder}" for folder in FOLDERS)]
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018
    # A module of the same name would be what type checkers see.
    assert not set(module.__all__) & {each.name for each in pkgutil.iter_modules(module.__path__)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_what_may_be_changed_there(folder: str) -> None:
    doc = importlib.import_module(f"lorarec.{folder}").__doc__ or ""
    assert doc.endswith(".")
    assert "\n" not in doc
    assert " here" in doc or "add a" in doc


@pytest.mark.parametrize("path", FILES, ids=str)
def test_other_folders_are_imported_through_their_public_names(path: Path) -> None:
    own = path.parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (parts := (node.module or "").split("."))[0] == "lorarec":
            assert len(parts) <= 2 or parts[1] == own, f"{path}:{node.lineno} imports {node.module}"


def test_import_is_light() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    code = "import sys, lorarec; print('torch' in sys.modules, 'polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout == "False False\n"

"""The names that `lorarec` itself offers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lorarec


@pytest.mark.parametrize("name", lorarec.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(lorarec, name) is getattr(lorarec, name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lorarec' has no attribute 'trian'"):
        lorarec.trian  # noqa: B018


def test_import_is_light() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1])}
    code = "import sys, lorarec; print('torch' in sys.modules, 'polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout == "False False\n"

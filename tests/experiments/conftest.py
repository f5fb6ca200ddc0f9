"""A small log on disk, with a stored split, and a recipe for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lorarec.data import leave_one_out
from tests.factories import dataset_of, numbered_titles

USERS, ITEMS, LENGTH = 60, 40, 8


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users walk along a circle of items; a tenth of the items is new in the test."""
    return _write_circle(tmp_path_factory.mktemp("data") / "circle", seed=0, word="thing", begin=0)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another domain: other users walk along a circle of other items, at moments instead of positions."""
    return _write_circle(tmp_path_factory.mktemp("data") / "other", seed=1, word="other thing", begin=10**9)


def _write_circle(folder: Path, seed: int, word: str, begin: int) -> Path:
    random = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{(start + step) % ITEMS}", begin + step)
        for user, start in enumerate(random.integers(ITEMS, size=USERS))
        for step in range(LENGTH)
    ]
    dataset = dataset_of(rows, numbered_titles(ITEMS, word, digits=1), folder.name).save(folder)
    leave_one_out(dataset, new_items=0.1, negatives=9).save(folder / "split")
    return folder


@pytest.fixture
def write_recipe(dataset_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe of the log; keys given replace those of a small one, None leaves a key out."""

    def write(**keys: Any) -> Path:
        small = {
            "dataset": str(dataset_folder),
            "settings": ["warm"],
            "seeds": [1],
            "rows": {"bpr-mf": {"options": {"epochs": 1, "hidden_size": 4}}},
        }
        path = tmp_path / "recipe.yaml"
        chosen = {key: value for key, value in (small | keys).items() if value is not None}
        path.write_text(yaml.safe_dump(chosen, sort_keys=False))
        return path

    return write

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
    folder = tmp_path_factory.mktemp("data") / "circle"
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(start + step) % ITEMS}", step)
        for user, start in enumerate(random.integers(ITEMS, size=USERS))
        for step in range(LENGTH)
    ]
    dataset = dataset_of(rows, numbered_titles(ITEMS, "thing", digits=1), "circle").save(folder)
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

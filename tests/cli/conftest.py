"""A dataset on disk, for verbs."""

from pathlib import Path

import pytest

from lorarec.data import leave_one_out
from tests.factories import dataset_of, numbered_titles


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A dataset folder with a stored split."""
    rows = [(f"u{k // 4:02}", f"i{k * 7 % 50:02}", k) for k in range(80)]
    dataset = dataset_of(rows, numbered_titles(50), "shop").save(tmp_path / "shop")
    leave_one_out(dataset, new_items=0.1, negatives=5).save(tmp_path / "shop" / "split")
    return tmp_path / "shop"

"""A dataset on disk, for verbs."""

from pathlib import Path

import polars as pl
import pytest

from lorarec.data import Dataset, leave_one_out


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A dataset folder with a stored split."""
    rows = [(f"u{k // 4:02}", f"i{k * 7 % 50:02}", k) for k in range(80)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": [f"i{k:02}" for k in range(50)], "title": [f"lamp {k}" for k in range(50)]})
    dataset = Dataset.from_frames("shop", interactions, items).save(tmp_path / "shop")
    leave_one_out(dataset, new_items=0.1, negatives=5).save(tmp_path / "shop" / "split")
    return tmp_path / "shop"

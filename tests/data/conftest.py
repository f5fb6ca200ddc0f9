"""Small datasets for the tests of lorarec.data."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset


@pytest.fixture
def frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Interactions of 40 users with 3 to 12 of 60 items each at distinct times, and the items."""
    random = np.random.default_rng(7)
    rows = []
    for user in range(40):
        items = random.permutation(60)[: 3 + user % 10]
        times = random.permutation(1000)[: len(items)]
        rows += [(f"u{user:02}", f"i{item:02}", int(at), 4.0) for item, at in zip(items, times, strict=True)]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    items_table = pl.DataFrame({"item_id": [f"i{k:02}" for k in range(60)], "title": [f"Thing {k}" for k in range(60)]})
    return pl.DataFrame(rows, schema=schema, orient="row"), items_table


@pytest.fixture
def dataset(frames: tuple[pl.DataFrame, pl.DataFrame]) -> Dataset:
    """The dataset of `frames`."""
    return Dataset.from_frames("toy", *frames)

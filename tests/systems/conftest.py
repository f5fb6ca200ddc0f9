"""A log in which items follow each other in four circles of ten, and the same log with the items shuffled."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, leave_one_out
from lorarec.systems import Material

USERS, CIRCLES, LENGTH = 120, 4, 10


def _material(shuffled: bool) -> Material:
    random = np.random.default_rng(0)
    items = CIRCLES * LENGTH
    rows = []
    for user in range(USERS):
        start, circle = random.integers(LENGTH), user % CIRCLES
        chosen = circle * LENGTH + (start + np.arange(8)) % LENGTH
        if shuffled:
            chosen = random.permutation(items)[:8]
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(chosen)]
    titles = pl.DataFrame({"item_id": [f"i{k}" for k in range(items)], "title": [f"thing no{k}" for k in range(items)]})
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    dataset = Dataset.from_frames("circles", interactions, titles)
    return Material(dataset, leave_one_out(dataset, new_items=0, seed=1))


@pytest.fixture(scope="session")
def circles() -> Material:
    return _material(shuffled=False)


@pytest.fixture(scope="session")
def noise() -> Material:
    return _material(shuffled=True)

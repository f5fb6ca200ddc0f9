"""A dataset in which titles of a user's items share a word, and its split."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, Split, leave_one_out

NOUNS = ["lamp", "chair", "table", "brush", "game", "puzzle"]


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """36 users; each chooses seven of the ten items of one noun."""
    rng = np.random.default_rng(0)
    items = [(f"{noun}-{number}", f"number{number} {noun}") for noun in NOUNS for number in range(10)]
    rows = []
    for user in range(36):
        chosen = rng.permutation(10)[:7]
        rows += [(f"u{user:02}", f"{NOUNS[user % 6]}-{number}", at) for at, number in enumerate(chosen)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Dataset.from_frames("nouns", interactions, pl.DataFrame(items, schema=["item_id", "title"], orient="row"))


@pytest.fixture(scope="session")
def split(dataset: Dataset) -> Split:
    """Leave-one-out with both settings and ten candidates."""
    return leave_one_out(dataset, new_items=0.2, negatives=9)

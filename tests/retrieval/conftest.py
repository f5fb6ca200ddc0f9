"""A shop in which users buy either lamps or games; a few items are new."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset


@pytest.fixture(scope="session")
def shop() -> Dataset:
    """40 users with 6 items each; items 00-19 are lamps, 20-39 games, and nobody has chosen those from 40 on."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(40):
        chosen = 20 * (user % 2) + random.permutation(20)[:6]
        rows += [(f"u{user:02}", f"i{item:02}", time) for time, item in enumerate(chosen)]
    kinds = ["lamp"] * 20 + ["game"] * 20 + ["lamp", "lamp", "game", "game"]
    items = pl.DataFrame(
        {"item_id": [f"i{k:02}" for k in range(44)], "title": [f"{kind} no{k}" for k, kind in enumerate(kinds)]}
    )
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    return Dataset.from_frames("shop", interactions, items)

"""A shop in which users buy either lamps or games; a few items are new."""

import numpy as np
import pytest

from lorarec.data import Dataset
from tests.factories import Row, dataset_of


@pytest.fixture(scope="session")
def shop() -> Dataset:
    """40 users with 6 items each; items 00-19 are lamps, 20-39 games, and nobody has chosen those from 40 on."""
    random = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(40):
        chosen = 20 * (user % 2) + random.permutation(20)[:6]
        rows += [(f"u{user:02}", f"i{item:02}", time) for time, item in enumerate(chosen)]
    kinds = ["lamp"] * 20 + ["game"] * 20 + ["lamp", "lamp", "game", "game"]
    titles = {f"i{k:02}": f"{kind} no{k}" for k, kind in enumerate(kinds)}
    return dataset_of(rows, titles, "shop")

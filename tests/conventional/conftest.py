"""Click logs with a planted pattern."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset
from lorarec.data.clicks import ClickLog, click_log

KINDS = 8
ITEMS = 64


def kind_of(item: int) -> int:
    return item % KINDS


@pytest.fixture(scope="session")
def plant() -> Callable[..., ClickLog]:
    """Builds a log whose label is a rule of (user's group, items before, item); titles and genres say nothing."""

    def build(
        rule: Callable[[int, list[int], int], bool], users: int = 400, length: int = 12, seed: int = 0
    ) -> ClickLog:
        rng = np.random.default_rng(seed)
        rows = []
        for user in range(users):
            before: list[int] = []
            for at in range(length):
                item = int(rng.integers(ITEMS))
                rating = 5.0 if rule(user % 2, before, item) else 1.0
                rows.append((f"u{user:04}", f"i{item:02}", at * 1000 + user, rating))
                before.append(item)
        schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
        interactions = pl.DataFrame(rows, schema=schema, orient="row")
        items = pl.DataFrame(
            {
                "item_id": [f"i{item:02}" for item in range(ITEMS)],
                "title": [f"film {item}" for item in range(ITEMS)],
                "genres": [f"kind {kind_of(item)}" for item in range(ITEMS)],
            }
        )
        groups = pl.DataFrame(
            {"user_id": [f"u{user:04}" for user in range(users)], "gender": ["FM"[user % 2] for user in range(users)]}
        )
        return click_log(Dataset.from_frames("planted", interactions, items, groups))

    return build

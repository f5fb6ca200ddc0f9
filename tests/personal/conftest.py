"""A small click log in which one half of the users likes what the other half does not."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset

COLOURS = ["red", "green", "blue", "black", "white", "small", "big", "old"]
THINGS = ["lamp", "chair", "table", "brush"]


@pytest.fixture(scope="session")
def taste() -> Dataset:
    """30 users, 12 ratings each of 32 things; women like lamps and chairs, men the rest.

    The last user's ratings are all of one moment at the end, so that it is unseen and without a history.
    """
    rng = np.random.default_rng(0)
    rows = []
    for user in range(30):
        things = rng.choice(32, 12, replace=False)
        for at, thing in enumerate(things):
            time = 10**6 if user == 29 else at * 100 + user
            rows.append((f"u{user:02}", f"i{thing:02}", time, 5.0 if (thing < 16) == (user % 2 == 0) else 2.0))
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    titles = [f"{colour} {thing}" for thing in THINGS for colour in COLOURS]
    items = pl.DataFrame({"item_id": [f"i{thing:02}" for thing in range(32)], "title": titles})
    users = pl.DataFrame({"user_id": [f"u{user:02}" for user in range(30)], "gender": ["F", "M"] * 15})
    return Dataset.from_frames("taste", pl.DataFrame(rows, schema=schema, orient="row"), items, users)

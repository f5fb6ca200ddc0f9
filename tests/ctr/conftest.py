"""Click logs with a planted pattern."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset
from lorarec.data.click_logs import ClickLog, click_log

KINDS, ITEMS = 5, 20
Rule = Callable[[tuple[int, int], list[int], int], bool]


def make_log(rule: Rule, users: int, length: int = 12, kinds: Callable[[int], int] | None = None) -> ClickLog:
    """Make the log of users who come one after another; users of validation and test are new, so ids do not help.

    Args:
        rule: says from (gender, age) of the user, the kinds of the items before and the item's kind if it is liked.
        kinds: of the item at each place; random ones when None.
    """
    rng = np.random.default_rng(0)
    rows, profiles = [], []
    for user in range(users):
        profile = int(rng.integers(2)), int(rng.integers(2))
        profiles.append((f"u{user:04}", "FM"[profile[0]], 20 + profile[1]))
        before: list[int] = []
        for at in range(length):
            kind = int(rng.integers(KINDS)) if kinds is None else kinds(at)
            item = kind + KINDS * int(rng.integers(ITEMS // KINDS))
            rating = 5.0 if rule(profile, before, kind) else 1.0
            rows.append((f"u{user:04}", f"i{item:02}", user * 1000 + at, rating))
            before.append(kind)
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    items = pl.DataFrame(
        {
            "item_id": [f"i{item:02}" for item in range(ITEMS)],
            "title": [f"film {item}" for item in range(ITEMS)],
            "genres": [f"kind {item % KINDS}" for item in range(ITEMS)],
        }
    )
    people = pl.DataFrame(profiles, schema=["user_id", "gender", "age"], orient="row")
    return click_log(Dataset.from_frames("planted", pl.DataFrame(rows, schema=schema, orient="row"), items, people))


@pytest.fixture(scope="session")
def small_log() -> ClickLog:
    """A log of 40 users in which kinds below 2 are liked."""
    return make_log(lambda profile, before, kind: kind < 2, users=40)

"""Preference for adapters, from users' weights and history lengths."""

import numpy as np
import polars as pl

from lorarec.personal import adapter_preference, describe_preference
from lorarec.personal.user_mixture_report import plot_preference, preference_section

USERS = pl.Series("user_id", [f"u{user:02}" for user in range(30)])


def test_short_histories_prefer_the_general_adapter(tmp_path):
    lengths = np.arange(30)
    weights = 1 - lengths / 30
    hits = {"general": (lengths < 10).astype(float), "own mixture": np.ones(30)}
    found = adapter_preference(USERS, lengths, weights, hits) | {"adapter": "general"}
    assert found["users"] == 30
    assert found["spearman"]["rho"] == -1
    assert [(part["name"], part["from"], part["to"]) for part in found["terciles"]] == [
        ("short", 0, 9),
        ("middle", 10, 19),
        ("long", 20, 29),
    ]
    assert [part["users"] for part in found["terciles"]] == [10, 10, 10]
    np.testing.assert_allclose([part["weight"] for part in found["terciles"]], [0.85, 31 / 60, 11 / 60])
    assert [part["ndcg@1"]["general"]["mean"] for part in found["terciles"]] == [1, 0, 0]
    assert "the shorter a history, the more of general" in describe_preference(found)
    report = "\n".join(preference_section(found))
    assert "| short, 0 to 9 events | 10 | 0.850 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in report
    table = pl.DataFrame({"events": lengths, "weights": np.stack([weights, 1 - weights], axis=1)})
    plot_preference(tmp_path / "adapter_preference.png", table, found)
    assert (tmp_path / "adapter_preference.png").read_bytes().startswith(b"\x89PNG")


def test_users_count_once_and_lengths_are_not_parted():
    lengths = np.array([3] * 20 + [9] * 10)
    once = adapter_preference(USERS, lengths, lengths / 10, {"own": np.ones(30)})
    twice = adapter_preference(
        pl.concat([USERS, USERS]), *(np.tile(lengths, 2) / by for by in (1, 10)), {"own": np.ones(60)}
    )
    assert once == twice
    assert [(part["from"], part["to"], part["users"]) for part in once["terciles"]] == [(3, 3, 20), (9, 9, 10)]


def test_all_alike():
    found = adapter_preference(USERS, np.arange(30), np.full(30, 0.4), {"own": np.ones(30)}) | {"adapter": "general"}
    assert found["spearman"] is None
    assert "All users have the same weight of general" in describe_preference(found)

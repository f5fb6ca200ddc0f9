"""Events that are routed, and events that get the router's mean weights."""

import numpy as np
import pytest

from lorarec.ctr.features import FeatureEncoder
from lorarec.data.click_logs import ClickLog, click_log
from lorarec.personal.fallback import counts_of_test, falls_back
from tests.factories import dataset_of

#: Films of the end: without a known field, with a known genre, with a known year.
NEW = ["stranger", "genre", "year"]


@pytest.fixture(scope="module")
def log() -> ClickLog:
    """Old users rate old films in training; at the end an old, a new and a one-moment user meet others."""
    rows = [(f"u{k % 4}", f"old{k % 5}", k, float(1 + k % 5)) for k in range(80)]
    rows += [("u0", film, 100 + at, 5.0) for at, film in enumerate(NEW)]
    rows += [("newcomer", film, 110 + at, 1.0) for at, film in enumerate(["old0", "old1", *NEW])]
    rows += [("moment", f"old{k}", 120, 5.0) for k in range(3)]
    titles = {f"old{k}": f"lamp {k} (1999)" for k in range(5)}
    titles |= dict(zip(NEW, ["new (2030)", "newer (2031)", "newest (1999)"], strict=True))
    return click_log(dataset_of(rows, titles, genres=["Drama"] * 5 + ["Noir", "Noir, Drama", "Noir"]))


def _falls(log: ClickLog, user: str) -> dict[str, bool]:
    """Return by film whether the events of a user after training fall back."""
    events = np.flatnonzero((log.users.gather(log.user) == user).to_numpy() & (log.time >= 100))
    films = log.dataset.items["item_id"].gather(log.item[events])
    return dict(zip(films, falls_back(FeatureEncoder(log, 10), events).tolist(), strict=True))


def test_unseen_items_fall_back_unless_a_field_is_known(log: ClickLog) -> None:
    assert _falls(log, "u0") == {"stranger": True, "genre": False, "year": False}


def test_unseen_users_are_routed_once_they_have_a_history(log: ClickLog) -> None:
    expected = {"old0": True, "old1": False, "stranger": True, "genre": False, "year": False}
    assert _falls(log, "newcomer") == expected


def test_users_without_history_fall_back(log: ClickLog) -> None:
    assert _falls(log, "moment") == {"old0": True, "old1": True, "old2": True}


def test_counts(log: ClickLog) -> None:
    test = log.rows("test")
    found = counts_of_test(FeatureEncoder(log, 10), test)
    assert found["events"] == len(test)
    assert found["without_history"] == 4
    assert found["fell_back"] == int(falls_back(FeatureEncoder(log, 10), test).sum()) == 5
    assert found["unseen_users"] == 8
    assert found["unseen_items"] == int(log.dataset.items["item_id"].gather(log.item[test]).is_in(NEW).sum())

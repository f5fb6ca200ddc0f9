"""Evidence against counts by loops, and what must not count."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Evidence
from lorarec.data.evidence import LEVELS, NEW, SILENT

ITEMS = [f"i{number}" for number in range(12)]
HISTORIES = st.lists(st.lists(st.sampled_from(ITEMS), max_size=6), min_size=1, max_size=8)


def frame(histories: list[list[str]]) -> pl.DataFrame:
    users = [f"u{number}" for number in range(len(histories))]
    return pl.DataFrame(
        {"user_id": users, "history": histories}, schema={"user_id": pl.String, "history": pl.List(pl.String)}
    )


def expected(histories: list[list[str]], history: list[str], candidate: str, own: int | None) -> str:
    """The word by its definition."""
    others = [set(items) for user, items in enumerate(histories) if user != own]
    catalogue = {item for items in histories for item in items}
    counts = Counter(
        {
            item: sum(item in items and past in items for items in others for past in set(history))
            for item in catalogue - set(history)
        }
    )
    if not any(candidate in items for items in others):
        return NEW
    if not counts[candidate]:
        return SILENT
    ahead = sum(count >= counts[candidate] for count in counts.values())
    return next((word for share, word in LEVELS.items() if ahead <= share * len(catalogue)), SILENT)


@given(HISTORIES, st.lists(st.sampled_from(ITEMS), max_size=4), st.data())
@settings(deadline=None)
def test_words_equal_their_definition(histories: list[list[str]], history: list[str], data: st.DataObject) -> None:
    own = data.draw(st.none() | st.integers(0, len(histories) - 1))
    found = Evidence(frame(histories)).notes(history, ITEMS, None if own is None else f"u{own}")
    assert found == [expected(histories, history, item, own) for item in ITEMS]


@given(HISTORIES, st.integers(0, 7))
@settings(deadline=None)
def test_what_users_chose_themselves_does_not_count(histories: list[list[str]], user: int) -> None:
    """In training the target is in the user's own history; the word must be what it would be without."""
    user %= len(histories)
    without = [[] if other == user else items for other, items in enumerate(histories)]
    ours, theirs = Evidence(frame(histories)), Evidence(frame(without))
    gone = set(ITEMS) - {item for items in without for item in items}
    for item, word in zip(ITEMS, ours.notes(histories[user], ITEMS, f"u{user}"), strict=True):
        assert (word == NEW) == (item in gone)
    if {item for items in histories for item in items} == set(ITEMS) - gone:  # shares are of the same catalogue
        assert ours.notes(histories[user], ITEMS, f"u{user}") == theirs.notes(histories[user], ITEMS)


def test_a_word_means_the_same_in_a_larger_log() -> None:
    histories = [[f"i{user % 50}", f"i{(7 * user + 1) % 50}", f"i{user * user % 50}"] for user in range(200)]
    small, large = Evidence(frame(histories)), Evidence(frame(histories * 3))
    candidates = [f"i{number}" for number in range(50)]
    assert small.notes(["i1", "i2"], candidates) == large.notes(["i1", "i2"], candidates)


def test_hidden_and_unknown_candidates_are_new() -> None:
    evidence = Evidence(frame([["a", "b"], ["a", "b"], ["a", "c"]]))
    assert evidence.notes(["a"], ["b", "b", "z"], hidden=[False, True, False])[1:] == [NEW, NEW]
    assert evidence.notes(["a"], ["b"], user="somebody else") == evidence.notes(["a"], ["b"])


def test_popular_items_ask_a_bounded_number_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.data.evidence.MOST_USERS", 10)
    histories = [["a", f"i{user % 4}"] for user in range(100)] + [["z"]] * 3
    counts = Evidence(frame(histories))._counts(["a"], -1)
    assert 5 <= counts.sum() <= 10


def test_nobody_chose_anything() -> None:
    assert Evidence(frame([[], []])).notes(["a"], ["b", "c"]) == [NEW, NEW]

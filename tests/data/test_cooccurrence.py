"""Co-occurrence against counts by loops, and choices that must not count."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorarec.data import Cooccurrence
from lorarec.data.cooccurrence import LEVELS, NEW, SILENT

ITEMS = [f"i{number}" for number in range(12)]
#: Three items share each title, so that cosines are 0 or 1.
TITLES = {item: f"title{number % 4}" for number, item in enumerate(ITEMS)}
HISTORIES = st.lists(st.lists(st.sampled_from(ITEMS), max_size=6), min_size=1, max_size=8)


def frame(histories: list[list[str]]) -> pl.DataFrame:
    users = [f"u{number}" for number in range(len(histories))]
    return pl.DataFrame(
        {"user_id": users, "history": histories}, schema={"user_id": pl.String, "history": pl.List(pl.String)}
    )


def expected(histories: list[list[str]], history: list[str], candidate: str, own: int | None) -> str:
    """Return the word by its definition."""
    others = [set(items) for user, items in enumerate(histories) if user != own]
    catalogue = {item for items in histories for item in items}
    counts = Counter(
        {
            item: sum(item in items and past in items for items in others for past in set(history))
            for item in catalogue - set(history)
        }
    )
    if any(candidate in items for items in others):
        return level(counts[candidate], counts, len(catalogue))
    cosines = {item: TITLES[candidate] == TITLES[item] for item in catalogue - {candidate}}
    alike = sum(cosines.values())
    word = (
        level(sum(counts[item] for item in cosines if cosines[item]) / alike, counts, len(catalogue)) if alike else ""
    )
    return f"{NEW}, {word}" if word else NEW


def level(count: float, counts: Counter[str], items: int) -> str:
    ahead = sum(other >= count for other in counts.values()) if count else items
    return next((word for share, word in LEVELS.items() if ahead <= share * items), SILENT)


@given(HISTORIES, st.lists(st.sampled_from(ITEMS), max_size=4), st.data())
def test_words_equal_their_definition(histories: list[list[str]], history: list[str], data: st.DataObject) -> None:
    own = data.draw(st.none() | st.integers(0, len(histories) - 1))
    found = Cooccurrence(frame(histories), TITLES).hints(history, ITEMS, None if own is None else f"u{own}")
    assert found == [expected(histories, history, item, own) for item in ITEMS]


@given(HISTORIES, st.integers(0, 7))
def test_the_users_own_choices_do_not_count(histories: list[list[str]], user: int) -> None:
    """In training the target is in the user's own history; it must not change the word."""
    user %= len(histories)
    without = [[] if other == user else items for other, items in enumerate(histories)]
    ours, theirs = (Cooccurrence(frame(each), TITLES) for each in (histories, without))
    gone = set(ITEMS) - {item for items in without for item in items}
    for item, word in zip(ITEMS, ours.hints(histories[user], ITEMS, f"u{user}"), strict=True):
        assert word.startswith(NEW) == (item in gone)
    if {item for items in histories for item in items} == set(ITEMS) - gone:  # shares are of the same catalogue
        assert ours.hints(histories[user], ITEMS, f"u{user}") == theirs.hints(histories[user], ITEMS)


def test_a_word_means_the_same_in_a_larger_log() -> None:
    histories = [[f"i{user % 50}", f"i{(7 * user + 1) % 50}", f"i{user * user % 50}"] for user in range(200)]
    candidates = [f"i{number}" for number in range(60)]
    titles = {item: f"title{number % 7}" for number, item in enumerate(candidates)}
    small, large = Cooccurrence(frame(histories), titles), Cooccurrence(frame(histories * 3), titles)
    assert small.hints(["i1", "i2"], candidates) == large.hints(["i1", "i2"], candidates)


def test_hidden_and_unknown_candidates_are_new() -> None:
    titles = {"a": "lamp", "b": "chair", "c": "desk", "y": "a desk", "z": "brush"}
    evidence = Cooccurrence(frame([["a", "b"]] * 40 + [["a", "c"]]), titles)
    assert evidence.hints(["a"], ["b", "b", "z", "nowhere"], hidden=[False, True, False, False])[1:] == [NEW, NEW, NEW]
    assert evidence.hints(["a"], ["b"], user="somebody else") == evidence.hints(["a"], ["b"])


def test_popular_items_ask_a_bounded_number_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.data.cooccurrence.MAX_USERS", 10)
    histories = [["a", f"i{user % 4}"] for user in range(100)] + [["z"]] * 3
    counts = Cooccurrence(frame(histories), {item: item for items in histories for item in items})._counts(["a"], -1)
    assert 5 <= counts.sum() <= 10


def test_nobody_chose_anything() -> None:
    assert Cooccurrence(frame([[], []]), TITLES).hints(["a"], ["b", "c"]) == [NEW, NEW]


def test_new_items_borrow_from_similar_titles() -> None:
    """The known lamp is chosen with the items of the history, so a new lamp gets the same word."""
    known = {f"i{number}": f"thing number{number}" for number in range(40)}
    titles = known | {"a": "table", "lamp": "red lamp", "new lamp": "blue lamp", "new else": "brush"}
    histories = [["a", "lamp"]] * 30 + [["a", item] for item in known]
    evidence = Cooccurrence(frame(histories), titles)
    lamp, new, other = evidence.hints(["a"], ["lamp", "new lamp", "new else"])
    assert lamp in LEVELS.values()
    assert new == f"new, {lamp}"
    assert other == "new"
    assert evidence.hints(["a"], ["lamp"], hidden=[True])[0].startswith("new")


def test_rounding_places_no_new_item_before_those_that_it_borrows_from() -> None:
    """All items have the same count, so that each is the last of its equals."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        words = ["red", "lamp", "old", "sun", "tea", "cup"]
        titles = {f"i{number}": " ".join(rng.choice(words, rng.integers(1, 6))) for number in range(12)}
        counted = Cooccurrence(frame([[*titles]]), {**titles, "new": " ".join(words)})
        assert counted.hints(["i0"], ["i1", "new"], user="other") == [SILENT, NEW]


def test_words_with_other_titles_equal_those_that_are_made_with_them() -> None:
    train = pl.DataFrame({"user_id": ["1", "2", "3"], "history": [["a", "b"], ["a", "b"], ["c", "d"]]})
    titles = {"a": "Toy Story", "b": "Antz", "c": "Heat", "d": "Ronin", "e": "Toy Story 2"}
    larger = {"0": "Antz again", **titles, "d": "Toy Antz", "f": "Ronin Heat"}
    changed, made = Cooccurrence(train, titles).with_titles(larger), Cooccurrence(train, larger)
    for history in (["a"], ["c", "d"], ["f"]):
        assert changed.hints(history, list(larger)) == made.hints(history, list(larger))

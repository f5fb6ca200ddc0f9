"""Splits after an update: what was there before trains, and only the last of what is new is tested on."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import (
    Dataset,
    Split,
    global_time,
    leave_one_out,
    mark_new_cases,
    may_know_test_items,
    split_new_interactions,
)
from lorarec.data.times import moment_text
from lorarec.errors import LorarecError
from tests.factories import dataset_of, numbered_titles

START = 1_700_000_000


def shop_until(end: int, begin: int = 0) -> pl.DataFrame:
    """Return the interactions of 20 users with 30 items at times from begin to end; items appear one after another."""
    random = np.random.default_rng(0)
    rows = []
    for at in range(400):
        user, item = int(random.integers(20)), int(random.integers(10 + at // 20))
        if begin <= at < end:
            rows.append((f"u{user:02}", f"i{item:02}", START + at))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture
def before() -> Dataset:
    return Dataset.from_polars(shop_until(300), titles(), name="shop")


@pytest.fixture
def grown(before: Dataset) -> Dataset:
    return before.append(shop_until(400, 300), titles())


def titles() -> pl.DataFrame:
    named = numbered_titles(30)
    return pl.DataFrame({"item_id": list(named), "title": list(named.values())})


def test_all_that_was_there_before_is_training(before: Dataset, grown: Dataset) -> None:
    split = split_new_interactions(grown, negatives=3)
    assert split.info["options"]["cuts"] == [START + 380, START + 390]
    trained = dict(split.train.iter_rows())
    for (user,) in before.interactions.select("user_id").unique().iter_rows():
        old = before.history(user)
        assert trained[user][: len(old)] == old
    late = grown.interactions.filter(pl.col("timestamp") >= START + 390)
    targets = pl.concat([cases.select("user_id", "target") for cases in split.test.values()])
    assert set(targets.iter_rows()) <= set(late.select("user_id", "item_id").iter_rows())
    seen = set(split.train["history"].explode()) | set(split.valid["target"]) | set(split.valid["candidates"].explode())
    assert not seen & set(split.test.get("new-item", split.valid.clear())["target"])


def test_the_split_survives_a_folder(grown: Dataset, tmp_path) -> None:
    split = split_new_interactions(grown, negatives=3)
    saved = grown.save(tmp_path / "shop", split=split)
    assert split_new_interactions(Dataset.load(saved.folder), negatives=3).fingerprint == split.fingerprint
    assert Split.load(tmp_path / "shop" / "split").fingerprint == split.fingerprint


def test_too_few_new_interactions_are_refused(before: Dataset) -> None:
    with pytest.raises(LorarecError, match="shop: nothing was appended to it"):
        split_new_interactions(before)
    few = before.append(shop_until(302, 300), titles())
    with pytest.raises(LorarecError, match=r"shop: 2 of the new interactions are later .* append more of them at once"):
        split_new_interactions(few)


def test_an_update_with_late_interactions_alone_is_refused(before: Dataset) -> None:
    late = pl.DataFrame({"user_id": ["u00"], "item_id": ["i29"], "timestamp": [START + 7]})
    with pytest.raises(
        LorarecError, match=r"shop: 0 of the new interactions are later .* append more of them at once$"
    ):
        split_new_interactions(before.append(late, titles()))


def test_positions_of_each_user_are_no_times_of_an_update(caplog: pytest.LogCaptureFixture) -> None:
    places = pl.DataFrame([(f"u{user}", f"i{at:02}", at) for user in range(4) for at in range(20 + user)], orient="row")
    places.columns = ["user_id", "item_id", "timestamp"]
    shop = Dataset.from_polars(places, titles(), name="shop")
    more = pl.DataFrame([(f"u{at % 2}", "i29", 20 + at) for at in range(1, 30)], schema=places.schema, orient="row")
    with pytest.raises(
        LorarecError, match=r'shop: 0 of .* or use order="file" if the timestamps are positions of each'
    ):
        split_new_interactions(shop.append(more[:1], titles()))
    caplog.clear()
    split_new_interactions(shop.append(more, titles(), order="file"), negatives=3)
    assert not caplog.text
    split_new_interactions(shop.append(more, titles()), negatives=3)
    assert "shop is divided by time, but its timestamps seem to be positions" in caplog.text


def test_late_interactions_are_training(before: Dataset) -> None:
    late = shop_until(400, 300).vstack(pl.DataFrame({"user_id": ["u00"], "item_id": ["i29"], "timestamp": [START + 7]}))
    split = split_new_interactions(before.append(late, titles()), negatives=3)
    history = split.train.filter(pl.col("user_id") == "u00")["history"][0].to_list()
    assert "i29" in history[:3]


def test_cuts_that_leave_a_part_empty_are_refused(before: Dataset) -> None:
    split = global_time(before, cuts=(START + 200, START + 250), negatives=3)
    assert split.info["counts"]["cut_times"] == [START + 200, START + 250]
    assert split.info["options"]["cuts"] == [START + 200, START + 250]
    assert "ratios" not in split.info["options"]
    for cuts in ((START, START + 5), (START + 250, START + 900)):
        named = rf"with the cuts {moment_text(cuts[0])} and {moment_text(cuts[1])} a part is empty"
        with pytest.raises(LorarecError, match=named):
            global_time(before, cuts=cuts)
    with pytest.raises(LorarecError, match="which is not before the test part"):
        global_time(before, cuts=(START + 250, START + 250))


@pytest.mark.parametrize("protocol", [leave_one_out, global_time])
def test_new_cases_are_those_that_were_not_trained_on(before: Dataset, grown: Dataset, protocol) -> None:
    previous, split = protocol(before, negatives=3), split_new_interactions(grown, negatives=3)
    marked = mark_new_cases(split, previous)
    known = {user: list(history) for user, history in previous.train.select("user_id", "history").iter_rows()}
    for user, history, is_new in marked.train.iter_rows():
        left = known.pop(user, [])
        for item, new in zip(history, is_new, strict=True):
            assert new == (item not in left)
            if not new:
                left.remove(item)
        assert not left
    assert not known
    assert marked.cases == split.fingerprint
    assert marked.info["new_since"] == previous.fingerprint


def test_repeated_items_are_told_apart() -> None:
    rows = [("a", item, START + at) for at, item in enumerate("wxwzwx")]
    before = dataset_of(rows[:3], {item: item for item in "wxz"})
    split = Split(
        pl.DataFrame({"user_id": ["a"], "history": [list("wxwzwx")]}), pl.DataFrame(), {}, {"fingerprint": "2"}
    )
    previous = Split(
        pl.DataFrame({"user_id": ["a"], "history": [before.history("a")]}), pl.DataFrame(), {}, {"fingerprint": "1"}
    )
    assert mark_new_cases(split, previous).train["is_new"].to_list() == [[False, False, False, True, True, True]]


def test_models_of_before_know_no_test_items_of_a_later_part(before: Dataset, grown: Dataset) -> None:
    by_time, by_user = split_new_interactions(grown, negatives=3), leave_one_out(grown, negatives=3)
    early = global_time(grown, cuts=(START + 200, START + 299), negatives=3)
    assert not may_know_test_items(grown, by_time, before.fingerprint)
    assert may_know_test_items(grown, by_user, before.fingerprint)
    assert may_know_test_items(grown, early, before.fingerprint)
    assert not may_know_test_items(grown, by_user, "another")

"""Leave-one-out with new items, the split by global time, stored splits, few-shot subsets and damaged folders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lorarec.data import Dataset, Split, draw_split, few_shot, global_time, leave_one_out, load_split
from lorarec.data.click_logs import click_log
from lorarec.errors import LorarecError
from tests.factories import dataset_of, numbered_titles

CASES = ["user_id", "history", "target", "candidates"]
# Users, each a list of distinct items in the order of their times.
USERS = st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=8, unique=True), min_size=2, max_size=12)


def _dataset(users: list[list[int]]) -> Dataset:
    rows = [(f"u{user:02}", f"i{item:02}", at) for user, items in enumerate(users) for at, item in enumerate(items)]
    return dataset_of(rows, {f"i{item:02}": f"T{item}" for item in range(80)})


def _dicts(frame: pl.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["user_id"]: row for row in frame.iter_rows(named=True)}


def _items(frame: pl.DataFrame, *columns: str) -> set[str]:
    lists = [value if isinstance(value, list) else [value] for column in columns for value in frame[column].to_list()]
    return {item for items in lists for item in items}


def test_canonical_warm_protocol() -> None:
    split = leave_one_out(_dataset([[1, 2, 3, 4], [5, 6, 7], [8, 9]]), new_items=0, negatives=5)
    assert {user: row["history"] for user, row in _dicts(split.train).items()} == {
        "u00": ["i01", "i02"],
        "u01": ["i05"],
    }
    assert _dicts(split.valid)["u00"]["target"] == "i03"
    assert _dicts(split.valid)["u00"]["history"] == ["i01", "i02"]
    warm = _dicts(split.test["warm"])
    assert warm["u00"]["target"] == "i04"
    assert warm["u00"]["history"] == ["i01", "i02", "i03"]
    assert list(split.test) == ["warm"]
    assert split.info["counts"]["users_too_short"] == 1
    assert split.valid.columns == split.test["warm"].columns == CASES


def _check_sets(frame: pl.DataFrame, dataset: Dataset, negatives: int) -> None:
    touched = dict(dataset.interactions.group_by("user_id").agg("item_id").iter_rows())
    for user, target, candidates in frame.select("user_id", "target", "candidates").iter_rows():
        assert len(set(candidates)) == len(candidates) == negatives + 1
        assert set(candidates) & set(touched[user]) == {target}


@settings(max_examples=40)
@given(users=USERS, new_items=st.sampled_from([0.1, 0.3, 0.6]), seed=st.integers(0, 3))
def test_nothing_of_training_or_validation_holds_a_new_item(
    users: list[list[int]], new_items: float, seed: int
) -> None:
    users = [*users, [30, 31, 32, 33, 34, 35]]
    dataset = _dataset(users)
    split = leave_one_out(dataset, new_items=new_items, negatives=5, seed=seed)
    fresh, seen = split.test["new-item"], _items(split.train, "history") | _items(split.valid, *CASES[1:])
    new = set(fresh["target"])
    assert not new & (seen | _items(fresh, "history") | _items(split.test["warm"], "history", "target"))
    for frame in (split.valid, *split.test.values()):
        _check_sets(frame, dataset, negatives=5)
        assert frame["user_id"].is_unique().all()
        assert (frame["history"].list.len() > 0).all()
    for user, row in _dicts(split.train).items():
        own = [f"i{item:02}" for item in users[int(user[1:])]]
        assert row["history"] == [item for item in own[:-2] if item in row["history"]]
    for user, row in _dicts(fresh).items():
        own = [f"i{item:02}" for item in users[int(user[1:])]]
        before = own[: own.index(row["target"])]
        assert row["history"] == [item for item in before if item in row["history"]]
        assert not set(own[own.index(row["target"]) + 1 :]) & new
    valid = _dicts(split.valid)
    for user, row in _dicts(split.test["warm"]).items():
        own = [f"i{item:02}" for item in users[int(user[1:])]]
        assert row["target"] == own[-1]
        if user in valid:
            assert row["history"] == [*valid[user]["history"], own[-2]]


def test_the_share_of_new_items_is_held_out_and_used(dataset: Dataset) -> None:
    split = leave_one_out(dataset, new_items=0.2, negatives=9)
    assert split.info["counts"]["new_items"] == 12
    assert 0 < split.test["new-item"].height <= 40
    assert split.test["new-item"].columns == CASES


@pytest.mark.parametrize("draw", [leave_one_out, global_time])
def test_same_seed_same_split_whatever_the_row_order(draw: Callable[..., Split], dataset: Dataset) -> None:
    shuffled = Dataset.from_frames("x", dataset.interactions.sample(fraction=1, shuffle=True, seed=3), dataset.items)
    one, again, other = draw(dataset, negatives=9), draw(shuffled, negatives=9), draw(dataset, negatives=9, seed=1)
    for frame, same in zip((one.train, one.valid), (again.train, again.valid), strict=True):
        assert_frame_equal(frame, same)
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_items": 1.0}, "new_items must be"),
        ({"new_items": -0.1}, "new_items must be"),
        ({"negatives": 0}, "at least one negative"),
        ({"negatives": 60}, "61 candidates need as many items"),
    ],
)
def test_leave_one_out_options_out_of_range(dataset: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        leave_one_out(dataset, **options)


def test_no_user_with_three_interactions() -> None:
    with pytest.raises(LorarecError, match="no user has the three interactions"):
        leave_one_out(_dataset([[1, 2], [3]]))


def test_global_time_never_looks_ahead(dataset: Dataset) -> None:
    split = global_time(dataset, negatives=9, max_history=4)
    times = {(user, item): at for user, item, at, _ in dataset.interactions.iter_rows()}
    first_valid, first_test = split.info["counts"]["cut_times"]
    for row in split.train.iter_rows(named=True):
        assert all(times[row["user_id"], item] < first_valid for item in row["history"])
    parts = ((split.valid, first_valid, first_test), *((frame, first_test, 10**9) for frame in split.test.values()))
    for frame, start, end in parts:
        _check_sets(frame, dataset, negatives=9)
        for row in frame.iter_rows(named=True):
            at = times[row["user_id"], row["target"]]
            earlier = [times[row["user_id"], item] for item in row["history"]]
            assert start <= at < end
            assert earlier == sorted(earlier)
            assert earlier[-1] < at
            assert len(earlier) <= 4
            skipped = [other for (user, _), other in times.items() if user == row["user_id"] and other < at]
            assert earlier == sorted(skipped)[-4:]


def test_global_time_separates_new_items_from_warm_ones() -> None:
    shared = [[(item + 3 * user) % 10 for item in range(10)] for user in range(3)]
    users = [[*items, 10 + user] for user, items in enumerate(shared)]  # the last item of each user is new
    split = global_time(_dataset([*users, [*range(20, 28)]]), ratios=(8, 1, 2), negatives=5)
    seen = _items(split.train, "history") | _items(split.valid, *CASES[1:])
    assert set(split.test["new-item"]["target"]) == {"i10", "i11", "i12"}
    assert not seen & {"i10", "i11", "i12"}
    assert set(split.test["warm"]["target"]) <= seen


def test_global_time_unusable() -> None:
    with pytest.raises(LorarecError, match="too few distinct timestamps"):
        global_time(_dataset([[1], [2], [3]]))
    with pytest.raises(LorarecError, match="ratios"):
        global_time(_dataset([[1, 2, 3]]), ratios=(8, 2, 0))


def _of_times(times_of_users: list[list[int]]) -> Dataset:
    events = [(f"u{user}", time) for user, times in enumerate(times_of_users) for time in times]
    rows = [(user, f"i{number % 20:02}", time, number % 2 * 5.0) for number, (user, time) in enumerate(events)]
    return dataset_of(rows, numbered_titles(20), "shop")


@pytest.mark.parametrize("divide", [lambda dataset: global_time(dataset, negatives=2), click_log])
@pytest.mark.parametrize(
    ("times_of_users", "is_warned_of"),
    [
        ([[*range(12)], [*range(11)], [*range(1, 13)]], True),
        ([[*range(0, 30, 3)], [*range(1, 30, 3)], [*range(2, 30, 3)]], False),  # places in the file
        ([[10**9 + k for k in range(12)]] * 3, False),
    ],
)
def test_a_division_by_time_warns_of_positions_that_begin_again(
    divide: Callable[[Dataset], Any], times_of_users: list[list[int]], is_warned_of: bool, caplog: Any
) -> None:
    divide(_of_times(times_of_users))
    assert ("shop is divided by time, but" in caplog.text) == is_warned_of


def _with_a_user_of_everything(count: int) -> Dataset:
    """Twelve users with 4 of 30 items each, and `count` who have all of them."""
    rows = [
        (f"u{user:02}", f"i{(user * 7 + place * 3) % 30:02}", user + place * 8)
        for user in range(12)
        for place in range(4)
    ]
    rows += [(f"till{user}", f"i{item:02}", item) for user in range(count) for item in range(30)]
    return dataset_of(rows, numbered_titles(30, "Thing"), "shop")


@pytest.mark.parametrize("protocol", [leave_one_out, global_time])
def test_users_who_interacted_with_nearly_everything_are_set_aside_and_counted(protocol: Callable[..., Split]) -> None:
    split = protocol(_with_a_user_of_everything(2), negatives=9)
    counts = split.info["counts"]
    assert counts["users_without_negatives"] == 2
    assert counts["cases_without_negatives"] >= 2
    for cases in (split.valid, *split.test.values()):
        assert not cases["user_id"].str.starts_with("till").any()
    assert split.valid.height + split.test["warm"].height > 0
    assert protocol(_with_a_user_of_everything(0), negatives=9).info["counts"]["users_without_negatives"] == 0


def test_a_setting_all_of_whose_cases_lack_negatives_is_empty() -> None:
    rows = [
        (f"u{user}", f"i{(user * 7 + place * 3) % 20:02}", user + place * 4) for user in range(9) for place in range(6)
    ]
    rows += [("till", f"i{item:02}", item) for item in range(30)]
    split = global_time(dataset_of(rows, numbered_titles(30, "Thing"), "shop"), negatives=5, ratios=(6, 2, 2))
    assert split.test["new-item"].is_empty()
    assert split.test["warm"].height
    assert split.info["counts"]["users_without_negatives"] == 1
    with pytest.raises(LorarecError, match="shop: no user left 29 items untouched"):
        leave_one_out(_with_a_user_of_everything(0), negatives=29, new_items=0)


@pytest.fixture
def saved(dataset: Dataset, tmp_path: Path) -> Dataset:
    """The toy dataset in a folder."""
    return dataset.save(tmp_path / "toy")


def test_round_trip(dataset: Dataset, tmp_path: Path) -> None:
    split = leave_one_out(dataset, negatives=9)
    split.save(tmp_path / "split")
    loaded = Split.load(tmp_path / "split")
    assert_frame_equal(loaded.train, split.train)
    assert_frame_equal(loaded.valid, split.valid)
    assert list(loaded.test) == ["warm", "new-item"]
    for setting, cases in split.test.items():
        assert_frame_equal(loaded.test[setting], cases)
    assert loaded.info == split.info


def test_the_first_draw_is_stored_and_used_again(saved: Dataset) -> None:
    assert saved.folder is not None
    first = load_split(saved, negatives=9)
    stored = (saved.folder / "split" / "split.json").stat().st_mtime_ns
    assert load_split(saved).fingerprint == load_split(saved, negatives=9, seed=42).fingerprint == first.fingerprint
    assert (saved.folder / "split" / "split.json").stat().st_mtime_ns == stored
    assert load_split(Dataset.load(saved.folder)).fingerprint == first.fingerprint


def test_other_options_get_a_folder_of_their_own(saved: Dataset) -> None:
    assert saved.folder is not None
    default = load_split(saved)
    timed = load_split(saved, protocol="global-time", ratios=(6, 2, 2))
    assert load_split(saved, protocol="global-time", ratios=(6, 2, 2)).fingerprint == timed.fingerprint
    assert load_split(saved).fingerprint == default.fingerprint != timed.fingerprint
    assert len(list(saved.folder.glob("split*"))) == 2


@pytest.mark.parametrize("other", [{}, {"negatives": 5}])
def test_a_split_that_another_process_stores_meanwhile_is_used_if_it_has_the_same_options(
    saved: Dataset, monkeypatch: pytest.MonkeyPatch, other: Any
) -> None:
    assert saved.folder is not None
    folder = saved.folder / "split"

    def draw(*arguments: Any, **options: Any) -> Split:
        if not folder.exists():
            draw_split(saved, **{"negatives": 9, **other}).save(folder)
        return draw_split(*arguments, **options)

    monkeypatch.setattr("lorarec.data.splitting.draw_split", draw)
    assert load_split(saved, negatives=9).info["options"]["negatives"] == 9
    assert Split.load(folder).info["options"]["negatives"] == other.get("negatives", 9)


def test_a_dataset_without_a_folder_is_drawn_the_same_every_time(dataset: Dataset) -> None:
    assert load_split(dataset).fingerprint == load_split(dataset).fingerprint


def test_a_folder_that_cannot_be_written_to_is_drawn_the_same_every_time(
    saved: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saved.folder is not None
    monkeypatch.setattr("lorarec.data.splitting.os.access", lambda *_: False)
    assert load_split(saved).fingerprint == load_split(saved).fingerprint
    assert not (saved.folder / "split").exists()


def test_a_split_of_other_data_is_refused(saved: Dataset) -> None:
    load_split(saved)
    changed = Dataset.from_frames("toy", saved.interactions[1:], saved.items)
    with pytest.raises(LorarecError, match=r"drawn from other data: draw it again with `lorarec data split`"):
        load_split(replace(changed, folder=saved.folder))


def test_a_damaged_split_is_refused(saved: Dataset) -> None:
    assert saved.folder is not None
    folder = saved.folder / "split"
    split = load_split(saved)
    split.valid[1:].write_parquet(folder / "valid.parquet")
    with pytest.raises(LorarecError, match=r"not those of split\.json"):
        load_split(saved)
    (folder / "valid.parquet").unlink()
    with pytest.raises(LorarecError, match=r"valid\.parquet is missing"):
        load_split(saved)
    (folder / "split.json").write_text("[]")
    with pytest.raises(LorarecError, match="does not describe a split"):
        Split.load(folder)


def test_unknown_protocol(dataset: Dataset) -> None:
    with pytest.raises(LorarecError, match="no protocol 'random': use one of leave-one-out, global-time"):
        draw_split(dataset, protocol="random")


def test_options_of_the_other_protocol_are_refused(dataset: Dataset) -> None:
    with pytest.raises(LorarecError, match="option new_items is not for protocol global-time: use ratios, cuts, neg"):
        draw_split(dataset, protocol="global-time", new_items=0.2)
    with pytest.raises(LorarecError, match="option cuts is not for protocol leave-one-out: use new_items, negatives, "):
        load_split(dataset, cuts=(1, 2))


def test_few_shot_keeps_a_share_of_the_training_users(dataset: Dataset) -> None:
    split = leave_one_out(dataset)
    few, same, other = few_shot(split, 0.2), few_shot(split, 0.2), few_shot(split, 0.2, seed=1)
    assert few.train.height == round(0.2 * split.train.height)
    assert few.train.join(split.train, on="user_id").height == few.train.height
    assert few.train["user_id"].is_sorted()
    assert_frame_equal(few.valid, split.valid)
    assert few.fingerprint == same.fingerprint != other.fingerprint != split.fingerprint
    assert few.info["few_shot"] == {"fraction": 0.2, "seed": 42, "of": split.fingerprint}
    assert few.cases == split.cases == split.fingerprint != few.fingerprint
    assert few_shot(split, 1.0).train.equals(split.train)
    assert few_shot(split, 0.001).train.height == 1
    for fraction in (0, 1.5):
        with pytest.raises(LorarecError, match="few-shot fraction"):
            few_shot(split, fraction)

"""Click-through events: labels, division by time, histories without later events."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Dataset
from lorarec.data.click_logs import click_log
from lorarec.errors import LorarecError
from tests.factories import dataset_of


def _films(rows: list[tuple[str, str, int, float | None]]) -> Dataset:
    return dataset_of(rows, {item: f"film {item}" for _, item, *_ in rows}, "films")


def _random(seed: int, events: int = 60) -> Dataset:
    rng = np.random.default_rng(seed)
    columns = rng.integers([5, 9, 30, 6], size=(events, 4))
    return _films([(f"u{u}", f"i{i}", int(t), float(r)) for u, i, t, r in columns])


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_history_is_all_that_came_strictly_before(seed: int) -> None:
    log = click_log(_random(seed))
    for event in range(len(log)):
        before = [i for i in range(len(log)) if log.user[i] == log.user[event] and log.time[i] < log.time[event]]
        for limit in (2, 60):
            latest = log.histories(np.array([event]), limit)[0]
            assert latest.tolist() == (before[-limit:] or [-1])


def test_histories_of_many_events_are_padded_behind_the_latest() -> None:
    log = click_log(_random(0))
    every = np.arange(len(log))
    together = log.histories(every, 5)
    assert together.shape == (len(log), 5)
    for event in every:
        separate = log.histories(every[[event]], 5)[0]
        assert together[event].tolist() == separate.tolist() + [-1] * (5 - len(separate))
    assert log.histories(every[:0], 5).shape == (0, 1)


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_parts_follow_each_other_in_time(seed: int) -> None:
    log = click_log(_random(seed, events=200))
    train, valid, test = (log.time[log.rows(part)] for part in ("train", "valid", "test"))
    assert train.max() < valid.min() <= valid.max() < test.min()
    assert len(train) + len(valid) + len(test) == len(log)
    assert (np.diff(test) >= 0).all()


def test_rows_are_those_of_the_dataset() -> None:
    dataset = _random(3)
    log = click_log(dataset, positive_from=3.0)
    rows = dataset.interactions
    assert [log.users[int(u)] for u in log.user] == rows["user_id"].to_list()
    assert [dataset.items["item_id"][int(i)] for i in log.item] == rows["item_id"].to_list()
    assert log.label.tolist() == [int(rating >= 3) for rating in rows["rating"]]


def test_few_shot_samples_are_nested_and_seeded() -> None:
    log = click_log(_random(0))
    few, more = log.few_shot(5), log.few_shot(20)
    assert set(few) < set(more) <= set(log.rows("train"))
    assert (np.diff(log.time[more]) >= 0).all()
    assert log.few_shot(5).tolist() == few.tolist()
    assert log.few_shot(20, seed=1).tolist() != more.tolist()
    assert set(log.few_shot(2, part="test")) < set(log.few_shot(6, part="test")) <= set(log.rows("test"))
    for part, count in (("train", 0), ("test", 1000)):
        with pytest.raises(LorarecError, match=f"cannot draw {count} of .* {part} events"):
            log.few_shot(count, part=part)


def test_fingerprint_knows_data_and_labels() -> None:
    dataset = _random(0)
    assert click_log(dataset).fingerprint == click_log(dataset).fingerprint
    assert click_log(dataset).fingerprint != click_log(dataset, positive_from=2.0).fingerprint
    assert click_log(dataset).fingerprint != click_log(_random(1)).fingerprint
    assert click_log(dataset).fingerprint != click_log(dataset, stars=10.0).fingerprint
    users = pl.DataFrame({"user_id": [f"u{user}" for user in range(5)], "gender": list("MFMFM")})
    profiled = Dataset.from_frames("films", dataset.interactions, dataset.items, users)
    assert click_log(dataset).fingerprint != click_log(profiled).fingerprint


def test_bad_ratios() -> None:
    for ratios in ((8, 1), (8, 0, 1)):
        with pytest.raises(LorarecError, match="ratios must be three positive numbers"):
            click_log(_random(0), ratios=ratios)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("u", f"i{t}", t, 5.0) for t in range(9)], "every rating is at least 4"),
        ([("u", f"i{t}", t, 1.0) for t in range(9)], "no rating is at least 4"),
        ([("u", "a", 1, 5.0), ("u", "b", 2, 7.0), ("u", "c", 3, 1.0)], "item b of user u has the rating 7.0, outside"),
        ([("u", "a", 1, 5.0), ("u", "b", 2, None), ("u", "c", 3, 1.0)], "item b of user u is not rated"),
        ([("u", f"i{t}", 1, float(t)) for t in range(6)], "too few distinct timestamps"),
    ],
)
def test_bad_ratings(rows: list[tuple[str, str, int, float | None]], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        click_log(_films(rows))


@pytest.mark.parametrize("genres", [["Drama", "War"], 3])
def test_genres_that_are_not_text(genres: object) -> None:
    films = _random(0)
    items = films.items.with_columns(genres=pl.Series([genres] * films.items.height))
    with pytest.raises(LorarecError, match="films: column genres of the items must be text such as 'Drama, War', not "):
        click_log(Dataset.from_frames("films", films.interactions, items))

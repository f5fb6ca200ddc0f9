"""Decayed popularity against a loop over all interactions."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, Split, leave_one_out
from lorarec.errors import LorarecError
from lorarec.recommenders import Popularity, Recency, RecencyConfig, TrainingData
from tests.factories import dataset_of

DAY = 86_400


@pytest.fixture(scope="module")
def dated() -> tuple[Dataset, Split]:
    """40 users who choose some items twice, at moments within three years, some of them equal."""
    rng = np.random.default_rng(0)
    moments = 1_500_000_000 + rng.integers(0, 1000, (40, 12)) * DAY + rng.integers(0, 3, (40, 12))
    rows = [
        (f"u{user:02}", f"i{item:02}", int(at))
        for user, times in enumerate(np.sort(moments, axis=1))
        for item, at in zip(rng.integers(0, 25, 12), times, strict=True)
    ]
    dataset = dataset_of(rows)
    return dataset, leave_one_out(dataset, new_items=0.2, negatives=5)


def _by_definition(dataset: Dataset, split: Split, half_life: float) -> dict[str, float]:
    """Return the scores, from the first interactions of each user that the training histories contain."""
    events = []
    for user, history in split.train.select("user_id", "history").iter_rows():
        own = dataset.interactions.filter(user_id=user).select("item_id", "timestamp").rows()
        for item in history:
            at = next(time for other, time in own if other == item)
            own.remove((item, at))
            events.append((item, at))
    end = max(at for _, at in events)
    return {
        item: sum(0.5 ** ((end - at) / DAY / half_life) for other, at in events if other == item)
        for item in dataset.titles
    }


@pytest.mark.parametrize("half_life", [0.5, 30.0, 1000.0])
@pytest.mark.parametrize("setting", ["warm", "new-item"])
def test_scores_equal_a_loop_over_all_interactions(
    dated: tuple[Dataset, Split], setting: str, half_life: float
) -> None:
    dataset, split = dated
    cases, expected = split.test[setting], _by_definition(dataset, split, half_life)
    found = Recency(RecencyConfig(half_life=half_life)).fit(TrainingData(dataset, replace(split, test={}))).score(cases)
    for scores, candidates in zip(found, cases["candidates"], strict=True):
        np.testing.assert_allclose(scores, [expected[item] for item in candidates], rtol=1e-9)


def test_without_decay_it_is_popularity(dated: tuple[Dataset, Split]) -> None:
    data, cases = TrainingData(*dated), dated[1].test["warm"]
    slow = Recency(RecencyConfig(half_life=1e12)).fit(data)
    for found, expected in zip(slow.score(cases), Popularity().fit(data).score(cases), strict=True):
        np.testing.assert_allclose(found, expected)


def test_later_interactions_of_the_dataset_are_not_read(dated: tuple[Dataset, Split]) -> None:
    dataset, split = dated
    is_last = pl.int_range(pl.len()).over("user_id") == pl.len().over("user_id") - 1  # the targets of the test
    kept = dataset.interactions.filter(~is_last)
    cases = split.valid
    less = replace(dataset, interactions=kept)
    found, expected = (Recency().fit(TrainingData(each, split)).score(cases) for each in (less, dataset))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_positions_are_no_moments(dataset: Dataset, split: Split) -> None:
    with pytest.raises(LorarecError, match=r"nouns: recency needs the times of .* are positions \(up to 6\): leave"):
        Recency().fit(TrainingData(dataset, split))


def test_interactions_that_are_not_in_the_dataset_are_named(dated: tuple[Dataset, Split]) -> None:
    dataset, split = dated
    item = split.train["history"][0][0]
    other = pl.DataFrame({"user_id": ["x"], "history": [[item]]})
    with pytest.raises(LorarecError, match=f"that of user x with item {item} is not in the dataset"):
        Recency().fit(TrainingData(dataset, replace(split, train=other)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_life": 0}, "option half_life must be positive, got 0"),
        ({"half_life": "long"}, "option half_life must be float, got 'long'"),
    ],
)
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        Recency.from_options(options)


def test_it_is_saved_without_tensors(dated: tuple[Dataset, Split]) -> None:
    data, cases = TrainingData(*dated), dated[1].valid
    fitted = Recency().fit(data)
    assert fitted.tensors() == {}
    for found, expected in zip(Recency().restore(data, {}).score(cases), fitted.score(cases), strict=True):
        np.testing.assert_array_equal(found, expected)

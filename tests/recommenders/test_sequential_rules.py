"""Sequential rules against a loop over all pairs of the training histories."""

from collections import defaultdict

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.recommenders import SequentialRules, SequentialRulesConfig, TrainingData


@pytest.mark.parametrize(
    "config",
    [
        SequentialRulesConfig(),
        SequentialRulesConfig(max_history=3, max_distance=2, shrinkage=1.5),
        SequentialRulesConfig(max_history=1, max_distance=1, shrinkage=0),
    ],
)
def test_scores_equal_a_loop_over_pairs(dataset: Dataset, split: Split, config: SequentialRulesConfig) -> None:
    weight: dict[tuple[str, str], float] = defaultdict(float)
    leading: dict[str, float] = defaultdict(float)
    following: dict[str, float] = defaultdict(float)
    for history in split.train["history"].to_list():
        for place, before in enumerate(history):
            for distance, after in enumerate(history[place + 1 : place + 1 + config.max_distance], 1):
                weight[before, after] += 1 / distance
                leading[before] += 1 / distance
                following[after] += 1 / distance
    cases = split.test["warm"]
    found = SequentialRules(config).fit(TrainingData(dataset, split)).score(cases)
    for scores, history, candidates in zip(found, cases["history"], cases["candidates"], strict=True):
        latest = history.to_list()[-config.max_history :][::-1]
        expected = [
            sum(
                weight[item, candidate]
                / place
                / np.sqrt((leading[item] + config.shrinkage) * (following[candidate] + config.shrinkage))
                for place, item in enumerate(latest, 1)
                if (item, candidate) in weight
            )
            for candidate in candidates
        ]
        np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert np.concatenate(found).any()


def test_whole_catalogue_gives_the_same_scores(dataset: Dataset, split: Split) -> None:
    rules = SequentialRules().fit(TrainingData(dataset, split))
    items = dataset.items["item_id"].to_list()
    cases = split.test["warm"].head(20)
    everything = cases.with_columns(pl.Series("candidates", [items] * len(cases)))
    for some, every, candidates in zip(rules.score(cases), rules.score(everything), cases["candidates"], strict=True):
        np.testing.assert_allclose(some, [every[items.index(item)] for item in candidates], atol=1e-12)


def test_repeated_items_and_empty_histories(dataset: Dataset, split: Split) -> None:
    rules = SequentialRules().fit(TrainingData(dataset, split))
    case = split.test["warm"].filter(pl.col("history").list.len() > 1).head(1)
    history = case["history"][0].to_list()
    twice = case.with_columns(pl.Series("history", [[history[-1], history[-1]]]))
    once = case.with_columns(pl.Series("history", [history[-1:]]))
    np.testing.assert_allclose(rules.score(twice)[0], 1.5 * rules.score(once)[0])
    empty = case.with_columns(pl.Series("history", [[]], dtype=pl.List(pl.String)))
    assert not rules.score(empty)[0].any()


@pytest.mark.parametrize("option", ["max_history", "max_distance"])
def test_options_out_of_range_are_refused(option: str) -> None:
    with pytest.raises(LorarecError, match=option):
        SequentialRulesConfig(**{option: 0})
    with pytest.raises(LorarecError, match="shrinkage"):
        SequentialRulesConfig(shrinkage=-1)

"""Items that a user did not choose, of users who chose most of them as well."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.recommenders import BPRMF, BPRMFConfig, P5Config, TrainingData
from lorarec.recommenders.bpr_mf import chose_everything, sample_negatives
from lorarec.recommenders.p5_prompts import P5PromptBuilder
from lorarec.recommenders.p5_recommender import training_prompts

CONFIG = P5Config(epochs=1, negatives=3)


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 29), min_size=1, max_size=6), seed=st.integers(0, 3))
def test_drawn_negatives_were_never_chosen(counts: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    owned = [generator.permutation(30)[:count] for count in counts]
    taken = np.unique(np.concatenate([user * 30 + items for user, items in enumerate(owned)])).astype(np.int64)
    if not len(taken):
        return
    assert not chose_everything(len(counts), 30, taken).any()
    users = np.repeat(np.arange(len(counts)), 40)
    drawn = sample_negatives(users, 30, taken, generator)
    assert not set((users * 30 + drawn).tolist()) & set(taken.tolist())
    one_short = np.setdiff1d(np.arange(30), [17])
    assert (sample_negatives(np.zeros(50, np.int64), 30, one_short, generator) == 17).all()


def _with_a_user_of_everything(data: TrainingData) -> TrainingData:
    """Return the same data with a further user, who chose every item."""
    till = pl.DataFrame({"user_id": ["till"], "history": [data.train_items]})
    return replace(data, split=replace(data.split, train=pl.concat([data.split.train, till])))


def test_users_who_chose_everything_are_no_pairs(circles: TrainingData) -> None:
    data = _with_a_user_of_everything(circles)
    items = len(data.train_items)
    users = np.repeat(np.arange(len(data.users)), [len(history) for history in data.histories])
    everything = chose_everything(len(data.users), items, np.unique(users * items + np.concatenate(data.histories)))
    assert np.flatnonzero(everything).tolist() == [len(data.users) - 1]
    cases, config = circles.split.test["warm"], BPRMFConfig(epochs=1, hidden_size=4)
    assert len(BPRMF(config).fit(data).score(cases)) == cases.height
    one_user = replace(data, split=replace(data.split, train=data.split.train.tail(1)))
    with pytest.raises(LorarecError, match="every user chose every item"):
        BPRMF(config).fit(one_user)


def test_users_who_chose_everything_have_next_item_prompts_only(circles: TrainingData) -> None:
    data = _with_a_user_of_everything(circles)
    histories, till = data.histories, len(data.users) - 1
    prompts = P5PromptBuilder(len(data.train_items), len(data.users))

    def count(item_lists: list[np.ndarray]) -> int:
        return len(list(training_prompts(item_lists, prompts, CONFIG, np.random.default_rng(0))))

    assert count(histories) - count(histories[:till]) == len(histories[till]) - 1

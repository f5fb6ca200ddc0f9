"""Items that a user did not choose, of users who chose most of them as well."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.errors import LorarecError
from lorarec.experiments import SYSTEMS
from lorarec.recommenders import TrainingData
from lorarec.recommenders.bpr_mf import chose_everything, not_chosen
from lorarec.recommenders.p5_model import P5Config, tasks
from lorarec.recommenders.p5_prompts import Prompts

OPTIONS = P5Config(epochs=1, negatives=3)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 29), min_size=1, max_size=6), seed=st.integers(0, 3))
def test_what_is_drawn_was_never_chosen(counts: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    owned = [generator.permutation(30)[:count] for count in counts]
    taken = np.unique(np.concatenate([user * 30 + items for user, items in enumerate(owned)])).astype(np.int64)
    if not len(taken):
        return
    assert not chose_everything(len(counts), 30, taken).any()
    users = np.repeat(np.arange(len(counts)), 40)
    drawn = not_chosen(users, 30, taken, generator)
    assert not set((users * 30 + drawn).tolist()) & set(taken.tolist())
    one_short = np.setdiff1d(np.arange(30), [17])
    assert (not_chosen(np.zeros(50, np.int64), 30, one_short, generator) == 17).all()


def _with_a_till(material: TrainingData) -> TrainingData:
    """The same with a user more, who chose every item."""
    till = pl.DataFrame({"user_id": ["till"], "history": [material.catalogue]})
    return replace(material, split=replace(material.split, train=pl.concat([material.split.train, till])))


def test_users_who_chose_everything_are_no_pairs(circles: TrainingData) -> None:
    material = _with_a_till(circles)
    items = len(material.catalogue)
    users = np.repeat(np.arange(len(material.users)), [len(history) for history in material.histories])
    everything = chose_everything(
        len(material.users), items, np.unique(users * items + np.concatenate(material.histories))
    )
    assert np.flatnonzero(everything).tolist() == [len(material.users) - 1]
    cases = circles.split.test["warm"]
    assert len(SYSTEMS["bpr-mf"](material, epochs=1, width=4)(cases)) == cases.height
    alone = replace(material, split=replace(material.split, train=material.split.train.tail(1)))
    with pytest.raises(LorarecError, match="every user chose every item"):
        SYSTEMS["bpr-mf"](alone, epochs=1, width=4)


def test_users_who_chose_everything_are_asked_for_the_next_item_alone(circles: TrainingData) -> None:
    material = _with_a_till(circles)
    histories, till = material.histories, len(material.users) - 1
    prompts = Prompts(len(material.catalogue), len(material.users))

    def count(asked: list[np.ndarray]) -> int:
        return len(list(tasks(asked, prompts, OPTIONS, np.random.default_rng(0))))

    assert count(histories) - count(histories[:till]) == len(histories[till]) - 1

"""Recommenders after an update: what is counted equals a new fit, and next-item models go on from their weights."""

from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
import torch

from lorarec.data import leave_one_out, split_new_interactions
from lorarec.errors import LorarecError
from lorarec.recommenders import (
    BPRMF,
    SASRec,
    SASRecConfig,
    TrainingData,
    continue_next_item,
    new_next_item,
    new_recommender,
)
from tests.factories import circle_log

COUNTED = ["popularity", "item-knn", "tf-idf", "ease", "sequential-rules", "recency"]
CONFIG = SASRecConfig(epochs=8, hidden_size=16, num_layers=1, batch_size=32, learning_rate=1e-2, dropout=0.0)
START = 1_700_000_000


@pytest.fixture(scope="module")
def pair() -> tuple[TrainingData, TrainingData]:
    """The log of circles before and after an update: a third of the users go on, two of them with new items."""
    whole, _ = circle_log("circles")
    rows = whole.interactions.with_columns(pl.col("timestamp") * 1000 + START)
    before = whole.from_frames("circles", rows, whole.items)
    going_on = rows.group_by("user_id", maintain_order=True).head(3).filter(pl.col("user_id").str.ends_with("1"))
    new = going_on.with_columns(pl.int_range(pl.len()).alias("timestamp") + START + 10_000_000)
    extra = pl.DataFrame(
        {"user_id": ["u1", "u2"], "item_id": ["j1", "j2"], "timestamp": [START + 10_000_000, START + 10_000_001]}
    )
    log = pl.concat([new.select(extra.columns), extra])
    after = before.append(log, pl.DataFrame({"item_id": ["j1", "j2"], "title": ["lamp new", "puzzle new"]}))
    split = leave_one_out(before, new_items=0.1, negatives=9)
    return TrainingData(before, split), TrainingData(after, split_new_interactions(after, negatives=9))


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted_or_read_from_titles_is_that_of_a_new_fit(pair, name) -> None:
    before, after = pair
    updated = new_recommender(name).fit(before).update(after, before, epochs=3)
    fitted = new_recommender(name).fit(after)
    for cases in (after.split.valid, after.split.test["warm"]):
        for one, two in zip(updated.score(cases), fitted.score(cases), strict=True):
            np.testing.assert_array_equal(one, two)
    for key, tensor in fitted.tensors().items():
        assert torch.equal(updated.tensors()[key], tensor)


def test_the_fitted_recommender_is_not_changed(pair) -> None:
    before, after = pair
    for recommender in (new_recommender("ease"), SASRec(CONFIG)):
        fitted = recommender.fit(before)
        scores = fitted.score(before.split.valid)
        fitted.update(after, before, epochs=1)
        for one, two in zip(scores, fitted.score(before.split.valid), strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_model_goes_on_from_its_weights_and_new_items_begin_as_in_a_new_model(pair) -> None:
    before, after = pair
    fitted = SASRec(CONFIG).fit(before)
    same = fitted.update(after, before, epochs=0)
    fresh = new_next_item(len(after.train_items), CONFIG, after.seed)
    for name, tensor in same.tensors().items():
        if name != "items.table.weight":
            assert torch.equal(tensor, fitted.tensors()[name])
    for item, row in after.train_index.items():
        source, number = (fitted.model, before.train_index[item]) if item in before.train_index else (fresh, row)
        assert torch.equal(same.model.items.all()[row], source.items.all()[number])
    assert {"j1", "j2"} <= after.train_index.keys() - before.train_index.keys()


def test_an_update_learns_the_histories_that_have_changed(pair) -> None:
    before, after = pair
    changed = after.changed_histories(before)
    old = dict(before.split.train.select("user_id", "history").iter_rows())
    expected = [
        [after.train_index[item] for item in history]
        for user, history in after.split.train.select("user_id", "history").iter_rows()
        if old.get(user) != history
    ]
    assert [history.tolist() for history in changed] == expected
    fitted = SASRec(CONFIG).fit(before)
    numbers = np.array([before.train_index.get(item, -1) for item in after.train_items])
    options = {name: value for name, value in asdict(CONFIG).items() if name not in ("encoder", "prefixes")}
    config = SASRecConfig(**options | {"epochs": 2})
    alone = TrainingData(after.dataset, type(after.split)(after.split.train, after.split.valid.clear(), {}, {}))
    by_hand = continue_next_item(fitted.model, numbers, changed, config, after.seed)
    updated = fitted.update(alone, before, epochs=2)
    for name, tensor in by_hand.state_dict().items():
        assert torch.equal(updated.tensors()[name], tensor)


def test_others_are_refused_by_name(pair) -> None:
    before, after = pair
    with pytest.raises(LorarecError, match="BPRMF cannot be updated: fit it again"):
        BPRMF().update(after, before, epochs=1)

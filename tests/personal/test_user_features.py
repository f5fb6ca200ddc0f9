"""Features of the users of a split depend on the training part only."""

import numpy as np
import polars as pl
import pytest

from lorarec.data import Dataset, global_time, leave_one_out
from lorarec.personal.user_features import fit_on_training_part, training_part, user_features
from tests.factories import dataset_of, numbered_titles


def log(repeats: bool = False) -> Dataset:
    """24 users with 3 to 8 rated items each; with repeats, each user's last item is also the first."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(24):
        things = rng.choice(30, 3 + user % 6, replace=False)
        things = [*things, things[0]] if repeats else things
        rows += [
            (f"u{user:02}", f"i{thing:02}", 100 * at + user, 1.0 + (user + at) % 5) for at, thing in enumerate(things)
        ]
    return dataset_of(rows, numbered_titles(30))


@pytest.mark.parametrize("protocol", [leave_one_out, global_time])
@pytest.mark.parametrize("repeats", [False, True])
def test_training_part_is_the_training_histories(protocol, repeats):
    dataset = log(repeats)
    split = protocol(dataset, negatives=3)
    part = training_part(dataset, split)
    found = part.interactions.group_by("user_id", maintain_order=True).agg(history="item_id")
    assert found.sort("user_id").equals(split.train.filter(pl.col("history").list.len() > 0).sort("user_id"))
    if not repeats:
        held_out = pl.concat([split.valid, *split.test.values()]).select("user_id", item_id="target")
        assert part.interactions.join(held_out, on=("user_id", "item_id"), how="semi").is_empty()


def test_click_through_model_is_trained_on_its_events_only(tiny_backbone):
    dataset = log()
    split = leave_one_out(dataset, negatives=3)
    recommender = fit_on_training_part("deepfm", dataset, split, 4.0, 5.0, 0, progress=False)
    seen = recommender.encoder.log
    items = seen.dataset.items["item_id"]
    pairs = set(zip(seen.users.gather(seen.user), items.gather(seen.item), strict=True))
    for cases in (split.valid, *split.test.values()):
        assert not pairs & set(cases.select("user_id", "target").iter_rows())


@pytest.mark.parametrize("ctr_model", ["deepfm", None])
def test_every_user_has_features_and_lengths_differ(tiny_backbone, ctr_model):
    dataset = log()
    split = leave_one_out(dataset, new_items=0, negatives=3)
    recommender = ctr_model and fit_on_training_part(ctr_model, dataset, split, 4.0, 5.0, 0, progress=False)
    users = user_features(tiny_backbone, dataset, split, recommender).table
    assert users["user_id"].to_list() == sorted(dataset.interactions["user_id"].unique())
    assert users["events"].to_list() == [1 + user % 6 for user in range(24)]
    numbers = users["representation"].to_numpy()
    assert np.isfinite(numbers).all()
    np.testing.assert_allclose(numbers[:, -1].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(numbers[:, -1].std(), 1, atol=1e-4)
    assert (np.diff(numbers[:6, -1]) > 0).all()
    single = users["events"].to_numpy() == 1
    if ctr_model:  # a click-through model does not represent a user whose only event has no history
        assert not numbers[single, :-1].any()

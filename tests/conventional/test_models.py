"""Each recommender learns the pattern that its mechanism is for; all give a batch the scores of single events."""

from collections.abc import Callable

import numpy as np
import pytest

from lorarec.conventional import MODELS, fit
from lorarec.conventional.fields import Encoder
from lorarec.data.clicks import ClickLog
from lorarec.metrics.clicks import auc

from .conftest import kind_of


def _test_auc(name: str, log: ClickLog, **options: object) -> float:
    found = fit(name, log, **{"epochs": 12, "lr": 3e-3, "batch_size": 128, **options})
    events = log.rows("test")
    return auc(found.score(events), log.label[events])


@pytest.mark.parametrize("name", MODELS)
def test_batch_equals_single(name: str, plant: Callable[..., ClickLog]) -> None:
    log = plant(lambda group, before, item: item % 2 == 0, users=40)
    found = fit(name, log, epochs=1)
    events = log.rows("test")[:9]
    together = found.score(events)
    alone = np.concatenate([found.score(events[[row]]) for row in range(len(events))])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert found.representation(events).shape == (9, 64)


@pytest.mark.parametrize("name", MODELS)
def test_everyone_learns_which_items_are_liked(name: str, plant: Callable[..., ClickLog]) -> None:
    assert _test_auc(name, plant(lambda group, before, item: kind_of(item) < 4), epochs=4) > 0.95


def test_dcnv2_learns_a_cross_of_user_and_item(plant: Callable[..., ClickLog]) -> None:
    log = plant(lambda group, before, item: (group + kind_of(item)) % 2 == 0)
    assert _test_auc("dcnv2", log) > 0.95


def test_din_learns_an_interest_that_the_target_wakes(plant: Callable[..., ClickLog]) -> None:
    log = plant(lambda group, before, item: kind_of(item) in map(kind_of, before), length=8, users=1500)
    assert _test_auc("din", log) > 0.9


def test_gru4rec_learns_order(plant: Callable[..., ClickLog]) -> None:
    """What was liked last decides, whatever came before."""
    log = plant(lambda group, before, item: bool(before) and kind_of(before[-1]) < 4, users=600)
    assert _test_auc("gru4rec", log) > 0.9


def test_sim_finds_what_is_far_in_the_past(plant: Callable[..., ClickLog]) -> None:
    def rule(group: int, before: list[int], item: int) -> bool:
        return kind_of(item) in map(kind_of, before[:3])

    log = plant(rule, length=40, users=600)
    far = _test_auc("sim", log, max_history=60)
    near = _test_auc("sim", log, max_history=10)
    assert far > 0.85 > near + 0.15


def test_unseen_users_and_items_are_scored(plant: Callable[..., ClickLog]) -> None:
    log = plant(lambda group, before, item: kind_of(item) < 4, users=40)
    encoder = Encoder(log)
    train = set(log.item[log.rows("train")])
    assert all((field.table >= 0).all() for field in (*encoder.users, *encoder.items))
    known = {item for item in range(len(log.dataset.items)) if encoder.items[0].table[item, 0]}
    assert known == train

"""Each recommender learns a pattern that its mechanism is for, and one without that mechanism does not."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lorarec.ctr import MODELS, CTRConfig, CTRNetwork, NetworkConfig, fit_ctr_model
from lorarec.ctr.embeddings import EmbeddedBatch
from lorarec.ctr.features import FeatureEncoder
from lorarec.data.click_logs import ClickLog
from lorarec.metrics.classification import auc
from tests.factories import KINDS, LikingRule, planted_clicks

SIZES = {"embedding_dim": 8, "hidden_units": (32, 16), "dropout": 0.0}


class Pooled(CTRNetwork[NetworkConfig]):
    """A deep network on user, target and the mean of the history: blind to order and to the target's relations."""

    def __init__(self, encoder: FeatureEncoder, config: NetworkConfig) -> None:
        super().__init__(encoder, config)
        self.deep = self.final_layers(self.embeddings.all_size)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        return self.deep(embedded.all_fields.flatten(1))


@pytest.fixture(autouse=True)
def pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "pooled", Pooled)


def _events(log: ClickLog, least: int) -> np.ndarray:
    """Return the test events with a history of at least `least` items."""
    events = log.rows("test")
    return events[(log.end - log.begin)[events] >= least]


def _auc(
    name: str, log: ClickLog, least: int = 0, epochs: int = 8, lr: float = 1e-2, max_history: int = 60, **sizes: Any
) -> float:
    config = CTRConfig(epochs=epochs, patience=epochs, learning_rate=lr, batch_size=128, max_history=max_history)
    network = MODELS[name].config_class(**SIZES, **sizes)
    found = fit_ctr_model(name, log, config, network=network)
    events = _events(log, least)
    return auc(found.score(events), log.label[events])


def _taste() -> LikingRule:
    """Every user likes kinds of their own, which only the ratings before tell."""
    rng = np.random.default_rng(1)
    liked = np.zeros(KINDS)

    def rule(profile: tuple[int, int], before: list[int], kind: int) -> bool:
        if not before:
            liked[:] = rng.integers(2, size=KINDS)
        return bool(liked[kind])

    return rule


@pytest.mark.parametrize("name", ["deepfm", "autoint"])
def test_a_field_interaction(name: str) -> None:
    """Gender and genre decide together, and neither of them alone: a linear model of all fields sees little."""
    log = planted_clicks(lambda profile, before, kind: (profile[0] + kind) % 2 == 0, users=200, kinds=lambda at: at % 4)
    assert _auc(name, log) > 0.95
    fields = FeatureEncoder(log, 1)
    tables = [(each, log.user) for each in fields.users] + [(each, log.item) for each in fields.items]
    one_hot = np.concatenate([np.eye(field.size)[field.table[rows, 0]] for field, rows in tables], 1)
    train, test = log.rows("train"), log.rows("test")
    linear = LogisticRegression().fit(one_hot[train], log.label[train])
    assert auc(linear.decision_function(one_hot[test]), log.label[test]) < 0.75


def test_dcnv2_learns_a_cross_of_three_fields() -> None:
    """No pair of gender, age and genre says anything, so that the inner products of DeepFM do not help."""
    log = planted_clicks(lambda profile, before, kind: (sum(profile) + (kind < 2)) % 2 == 0, users=800, length=4)
    assert _auc("dcnv2", log, lr=5e-3, epochs=12) > 0.9
    assert _auc("deepfm", log, lr=5e-3, epochs=12) < 0.75


def test_gru4rec_learns_order() -> None:
    """The order of the two latest items decides."""
    log = planted_clicks(lambda _, before, kind: (before[-2:] == sorted(before[-2:])) == (kind < 3), users=300)
    assert _auc("gru4rec", log, least=4, epochs=12) > 0.9
    assert _auc("pooled", log, least=4) < 0.75


def test_sasrec_learns_the_latest_item() -> None:
    log = planted_clicks(lambda _, before, kind: bool(before) and (before[-1] < 2) == (kind < 2), users=300)
    assert _auc("sasrec", log, least=4, hidden_size=16, num_layers=1) > 0.95
    assert _auc("pooled", log, least=4) < 0.85


def test_caser_learns_a_local_pattern() -> None:
    """An item of kind 0 directly before one of kind 1, wherever it was among the latest ten."""
    log = planted_clicks(lambda _, before, kind: (0, 1) in zip(before[-10:], before[-9:], strict=False), users=400)
    assert _auc("caser", log, least=4, epochs=4) > 0.93
    assert _auc("pooled", log, least=4, epochs=4) < 0.8


def test_din_learns_an_interest_that_the_target_wakes() -> None:
    log = planted_clicks(_taste(), users=400, length=14)
    assert _auc("din", log, least=9) > 0.95
    assert _auc("pooled", log, least=9) < 0.8


def test_sim_finds_behaviours_far_in_the_past() -> None:
    """Kinds take turns, so that the latest rating of the target's kind lies outside the short history of two."""
    log = planted_clicks(_taste(), users=400, length=15, kinds=lambda at: at % KINDS)
    search = {"num_retrieved": 2, "num_recent": 2}
    assert _auc("sim", log, least=KINDS, epochs=5, **search) > 0.9
    assert _auc("sim", log, least=KINDS - 1, max_history=KINDS - 1, epochs=3, **search) < 0.65
